"""sbom.py BOM FOLDER <PACKAGES: a CycloneDX list of cargo-cyclonedx, for what was built in FOLDER, as one that holds.

Of its components those that cargo tree printed on standard input stay; a dependency's feature that only another member of
the workspace asks for is not in the executable, nor is what it would bring. Added is what is linked in and no crate. Where
FOLDER was is left out.
"""

import json
import subprocess
import sys


def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def c_library():
    """The one that is linked in, by the name and version that lists of vulnerabilities use."""
    try:
        version = said("dpkg-query", "--show", "--showformat", "${source:Version}", "libc6-dev")
        return {"version": version, "purl": f"pkg:deb/debian/glibc@{version}"}
    except (OSError, subprocess.CalledProcessError):
        version = said("getconf", "GNU_LIBC_VERSION").split()[-1]
        return {"version": version, "purl": f"pkg:generic/glibc@{version}"}


bom, folder = sys.argv[1:]
with open(bom, encoding="utf-8") as file:
    bom = json.loads(file.read().replace(f"file://{folder}", "file:///evenkeel"))
packages = {tuple(line.split()[:2]) for line in sys.stdin}
bom["components"] = [c for c in bom["components"] if (c["name"], "v" + c["version"]) in packages]
kept = {c["bom-ref"] for c in bom["components"]} | {bom["metadata"]["component"]["bom-ref"]}
bom["dependencies"] = [
    {**d, "dependsOn": [ref for ref in d.get("dependsOn", []) if ref in kept]}
    for d in bom["dependencies"]
    if d["ref"] in kept
]
missing = packages - {(c["name"], "v" + c["version"]) for c in bom["components"]} - {("evenkeel", "v" + bom["metadata"]["component"]["version"])}
assert not missing, f"cargo-cyclonedx does not know of {missing}"

rust = said("rustc", "--version").split()[1]
bom["components"] += [
    {"type": "library", "bom-ref": "glibc", "name": "glibc", "scope": "required", **c_library()},
    {"type": "library", "bom-ref": "rust-std", "name": "std", "scope": "required", "version": rust,
     "purl": f"pkg:generic/rust-std@{rust}"},
]
compiler = said("cc", "--version").splitlines()[0]
bom["metadata"].setdefault("properties", []).append({"name": "evenkeel:cc", "value": compiler})
json.dump(bom, sys.stdout, indent=2, sort_keys=True)
print()
