#!/bin/sh
# Installs what the build and the tests need and this machine lacks: cmake and a C compiler (for two of pingora's
# dependencies and the allocator) and a PostgreSQL server (the demo and the tests run a private one).
set -eu

missing=
command -v cmake >/dev/null || missing="$missing cmake"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || missing="$missing postgresql"
[ -z "$missing" ] && exit 0

echo "setup: installing$missing"
if ! command -v apt-get >/dev/null; then
    echo "setup: this system has no apt-get; please install$missing by hand and try again" >&2
    exit 1
fi
root=
if [ "$(id -u)" != 0 ]; then
    root="sudo"
    command -v sudo >/dev/null || { echo "setup: needs root or sudo to install$missing" >&2; exit 1; }
fi
$root apt-get update -q
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $root apt-get install -q -y --no-install-recommends $missing
