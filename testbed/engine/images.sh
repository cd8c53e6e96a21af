#!/bin/sh
# Builds the three images of compose.yaml as their Dockerfiles say. What did not change comes out of the engine's cache.
set -eu
here=$(dirname "$0")
cd "$here/../.."
sh testbed/engine/bases.sh
# Where the buildx plugin is missing, as in Debian's docker.io, the classic builder does it: BuildKit is not needed.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
for app in evenkeel:Dockerfile evenkeel-db-checker:examples/db-checker/Dockerfile evenkeel-web:examples/web/Dockerfile; do
    echo "images: building ${app%%:*}" >&2
    docker build --quiet --tag "${app%%:*}" --file "${app#*:}" . >/dev/null
done
