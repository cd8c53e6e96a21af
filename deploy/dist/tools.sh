#!/bin/sh
# Installs the tools that are named, of the versions that this release is made with, into target/tools. What is there
# already stays. INSTALL_OPTIONS=--debug makes them sooner and slower.
set -eu
cd "$(dirname "$0")/../.."
for tool; do
    case $tool in
        cargo-deb) version=3.8.0 ;;
        cargo-cyclonedx) version=0.5.9 ;;
        *) echo "tools: which version of $tool?" >&2; exit 1 ;;
    esac
    [ ! -x target/tools/bin/"$tool" ] || grep -q "^\"$tool $version " target/tools/.crates.toml || rm target/tools/bin/"$tool"
    [ -x target/tools/bin/"$tool" ] && continue
    echo "tools: building $tool $version, once"
    # shellcheck disable=SC2086
    cargo install --quiet --locked --force ${INSTALL_OPTIONS:-} --root target/tools "$tool@$version"
done
