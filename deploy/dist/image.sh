#!/bin/sh
# The image as the Dockerfile's last stage says, around an executable that is there: image.sh EXECUTABLE NAME:TAG TARBALL.
# The tarball is for `docker load`, and an OCI layout as well. REVISION is the commit; SOURCE, if set, the repository's
# address. On the engine nothing stays.
set -eu
executable=$1 reference=$2 tarball=$3
here=$(cd "$(dirname "$0")" && pwd -P)
root=$here/../..
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
# Where the buildx plugin is missing, as in Debian's docker.io, the classic builder does it.
docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
# Not the caller's platform for images, which may be another than the executable's.
unset DOCKER_DEFAULT_PLATFORM

context=$(mktemp -d)
name=evenkeel-dist:$(basename "$context" | tr '[:upper:]' '[:lower:]' | tr -cd '[:alnum:]')
trap 'rm -rf "$context"; docker image rm "$name" >/dev/null 2>&1 || true' EXIT
install -m 755 "$executable" "$context/evenkeel"
install -m 644 "$root/Procfile" "$root/app.json" "$root/proxy.toml" "$context"
sed -n -e 's,^COPY --from=build /evenkeel ,COPY evenkeel ,' -e '/^FROM scratch/,$p' "$root/Dockerfile" >"$context/Dockerfile"
grep -q '^COPY evenkeel ' "$context/Dockerfile" \
    || { echo "image: the Dockerfile's last stage does not copy /evenkeel from the stage 'build' any more" >&2; exit 1; }

set -- --label "org.opencontainers.image.revision=${REVISION:-$(git -C "$root" rev-parse HEAD)}"
set -- "$@" --label "org.opencontainers.image.created=$(date --utc --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
[ -z "${SOURCE:-}" ] || set -- "$@" --label "org.opencontainers.image.source=$SOURCE"
docker build --quiet "$@" --tag "$name" "$context" >/dev/null
docker save "$name" >"$context/saved.tar"
python3 "$here/image.py" "$context/saved.tar" "$reference" >"$tarball"
