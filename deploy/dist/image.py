"""image.py SAVED NAME:TAG: what `docker save` wrote, as one layer that depends on nothing but its content.

An engine notes when and in which steps it built; none of that is kept, and every time is SOURCE_DATE_EPOCH. What is written
is an OCI layout with the file beside it that `docker load` of every version reads.
"""

import datetime
import hashlib
import io
import json
import os
import sys
import tarfile

# What the Dockerfile says of how the image is run. The rest is the engine's own.
KEPT = ["User", "ExposedPorts", "Env", "Cmd", "Entrypoint", "Healthcheck", "WorkingDir", "Labels", "StopSignal"]

epoch = int(os.environ["SOURCE_DATE_EPOCH"])
created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def archive(files):
    """A tarball of (TarInfo, bytes), in the order of their names."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for info, data in sorted(files, key=lambda file: file[0].name):
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = epoch
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def file(name, data):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def as_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


blobs = {}


def blob(kind, data):
    """Keeps it, and returns what refers to it."""
    digest = hashlib.sha256(data).hexdigest()
    blobs[f"blobs/sha256/{digest}"] = data
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}


def path(descriptor):
    return "blobs/" + descriptor["digest"].replace(":", "/")


saved, reference = sys.argv[1:]
tree = {}
with tarfile.open(saved) as tar:
    [manifest] = json.load(tar.extractfile("manifest.json"))
    config = json.load(tar.extractfile(manifest["Config"]))
    for name in manifest["Layers"]:
        with tarfile.open(fileobj=tar.extractfile(name)) as layer:
            for entry in layer:
                entry.name = entry.name.strip("/")
                assert entry.isfile() or entry.isdir(), f"{entry.name}: neither a file nor a directory"
                assert not os.path.basename(entry.name).startswith(".wh."), f"{entry.name}: a layer removes a file"
                entry.pax_headers = {}
                tree[entry.name] = (entry, layer.extractfile(entry).read() if entry.isfile() else b"")

layer = blob("layer.v1.tar", archive(tree.values()))
config = blob("config.v1+json", as_json({
    "architecture": config["architecture"],
    "os": config["os"],
    "created": created,
    "config": {key: config["config"][key] for key in KEPT if config["config"].get(key)},
    "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    "history": [{"created": created, "created_by": "deploy/dist/image.sh"}],
}))
manifest = blob("manifest.v1+json", as_json({
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer],
}))
names = {"io.containerd.image.name": f"docker.io/library/{reference}", "org.opencontainers.image.ref.name": reference.split(":")[-1]}
files = {
    **blobs,
    "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
    "index.json": as_json({"schemaVersion": 2, "manifests": [{**manifest, "annotations": names}]}),
    "manifest.json": as_json([{"Config": path(config), "RepoTags": [reference], "Layers": [path(layer)]}]),
}
sys.stdout.buffer.write(archive(file(name, data) for name, data in files.items()))
