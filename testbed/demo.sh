#!/usr/bin/env bash
# `make demo`: builds the demo's four programs and nothing else, says how far that is, and starts it. On a terminal cargo
# draws a bar; elsewhere there is a line for every 25 crates.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(--package evenkeel --package testbed --package web --package db-checker)
programs=(--bin evenkeel --bin demo --bin web --bin db-checker)

# Each crate once, as cargo says "Compiling" once for each.
crates=$(cargo tree --locked "${packages[@]}" --edges normal,build --prefix none --format '{p}' | sed 's/ (\*)$//' | sort -u | wc -l)
echo "demo: 1 of 2: building $crates crates; the first time that takes a minute or two on two cores, later seconds"

progress() {
    local begun=0
    while IFS= read -r line; do
        case $line in
            *" Compiling "*)
                begun=$((begun + 1))
                if [ $((begun % 25)) = 0 ]; then echo "demo: $begun of $crates crates after $SECONDS s"; fi ;;
            *) echo "$line" ;;
        esac
    done
}

if [ -t 2 ]; then
    cargo build --locked "${packages[@]}" "${programs[@]}"
else
    cargo build --locked "${packages[@]}" "${programs[@]}" 2>&1 | progress
fi
echo "demo: 2 of 2: built after $SECONDS s; the chain starts"
exec "${CARGO_TARGET_DIR:-target}/debug/demo" "$@"
