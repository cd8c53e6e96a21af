#!/bin/sh
# Lets libFuzzer look for bytes that break what must hold (`src/fuzz.rs`): sh fuzz/run.sh TARGET [SECONDS]
#
# What it finds interesting on the way stays below target/, and is where the next run begins. A case that fails is put below
# fuzz/artifacts/TARGET; once it is understood it belongs in fuzz/corpus/TARGET, under a name that says what it is.
set -eu
cd "$(dirname "$0")/.."
target=${1:?which target? one of fuzz/fuzz_targets}
seconds=${2:-60}
[ -f "fuzz/fuzz_targets/$target.rs" ] || { echo "no target $target; there are:" fuzz/fuzz_targets/*.rs >&2; exit 1; }
cargo +nightly --version >/dev/null 2>&1 || { echo "libFuzzer needs nightly Rust: rustup toolchain install nightly" >&2; exit 1; }
cargo +nightly fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }
found=target/fuzz-corpus/$target
mkdir -p "$found"
# Without a sanitizer: there is no unsafe code here to be watched, and it is twice as fast.
exec cargo +nightly fuzz run --sanitizer none --target-dir target/fuzz "$target" "$found" "fuzz/corpus/$target" -- \
    -max_total_time="$seconds" -max_len=4096 -timeout=10 -print_final_stats=1
