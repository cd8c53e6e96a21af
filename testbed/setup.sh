#!/bin/sh
# Installs what the build and the tests need and this machine lacks: cmake and a C compiler (for two of pingora's
# dependencies and the allocator) and PostgreSQL's programs (the demo and the tests run a private server). Nothing is
# started: Debian's package would make a cluster and start a server on port 5432, which nobody here asked for.
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
install() { $root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; }
case $missing in
    *postgresql*)
        # Whether a cluster is made says a file of this package, which therefore comes first.
        install postgresql-common
        settings=/etc/postgresql-common/createcluster.conf
        before=$(mktemp)
        cp $settings "$before"
        echo 'create_main_cluster = false' | $root tee -a $settings >/dev/null
        # shellcheck disable=SC2086
        status=0; install $missing || status=$?
        $root cp "$before" $settings
        rm -f "$before"
        exit $status ;;
esac
# shellcheck disable=SC2086
install $missing
