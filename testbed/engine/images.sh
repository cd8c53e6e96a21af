#!/bin/sh
# Builds the three images of compose.yaml as their Dockerfiles say, under names of the testbed's own. What did not change
# comes out of the engine's cache.
set -eu
here=$(dirname "$0")
cd "$here/../.."
sh testbed/engine/bases.sh
ours=evenkeel-testbed
# Where the buildx plugin is missing, as in Debian's docker.io, the classic builder does it: BuildKit is not needed.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
build() {
    echo "images: building $1" >&2
    tag=$ours/$1
    shift
    docker build --quiet --build-arg RUST_IMAGE=$ours/rust:1.95-slim-bookworm --tag "$tag" "$@" . >/dev/null
}
build evenkeel
for app in db-checker web; do
    build evenkeel-$app --build-arg RUNTIME_IMAGE=$ours/distroless:nonroot --file examples/$app/Dockerfile
done
