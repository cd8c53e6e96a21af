#!/bin/sh
# Prints the folder that holds prometheus and promtool: where PATH has both, or else where Debian's package was unpacked,
# below target/. It is unpacked without root and without its scripts, so nothing is installed, and no service is started.
# Where neither can be had, it says why and exits with status 1.
set -eu
cd "$(dirname "$0")/.."
if promtool=$(command -v promtool) && command -v prometheus >/dev/null; then
    dirname "$promtool"
    exit
fi
tools=$PWD/target/prometheus
programs=$tools/usr/bin
if [ ! -x "$programs/promtool" ]; then
    command -v apt-get >/dev/null || { echo "neither in PATH, nor has this system apt-get to get them" >&2; exit 1; }
    # apt's lists and archives are in a folder of our own, so that nothing of the system changes.
    apt=$PWD/target/apt
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    set -- -q -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt" -o Debug::NoLocking=true
    new=$(mktemp -d "$tools.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    if ! { apt-get "$@" update && cd "$new" && apt-get "$@" download prometheus && dpkg-deb -x prometheus_*.deb .; } \
        >"$apt/log" 2>&1; then
        echo "the package prometheus could not be had: $(tail -n 1 "$apt/log")" >&2
        exit 1
    fi
    rm -rf "$apt" "$new"/prometheus_*.deb
    chmod 755 "$new"
    rm -rf "$tools"
    mv "$new" "$tools"
fi
"$programs/promtool" --version >/dev/null 2>&1 || { echo "$programs/promtool does not run here" >&2; exit 1; }
echo "$programs"
