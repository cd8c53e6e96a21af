#!/bin/sh
# Makes the release a second time, from the same commit in another folder, and compares it with target/dist byte by byte.
set -eu
here=$(cd "$(dirname "$0")" && pwd -P)
cd "$here/../.."
[ -e target/dist/SHA256SUMS ] || { echo "compare: there is nothing to compare with; make dist" >&2; exit 1; }
other=$(mktemp -d)
trap 'rm -rf "$other"' EXIT
sh "$here/dist.sh" "$other/again" "$other/elsewhere"
diff --recursive --brief target/dist "$other/again" || { echo "compare: these differ" >&2; exit 1; }
echo "compare: $(wc -l <target/dist/SHA256SUMS) files, made twice in two folders, are the same:"
cat target/dist/SHA256SUMS
