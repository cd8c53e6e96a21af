#!/bin/sh
# What a release consists of, made from the commit that is checked out: dist.sh [OUT [WORK]], by default target/dist and
# target/dist-work. Two runs of one commit, wherever they work, write the same bytes: deploy/dist/compare.sh shows it. That
# holds for the same C compiler and C library, which are linked in and stand in the SBOM; Rust and the two tools are pinned.
#
# PROFILE=thin is a build for trying this script: it takes a fifth of the time. SOURCE=https://… names the repository in the
# image's labels.
set -eu
here=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
cd "$root"
absolute() { mkdir -p "$1" && (cd "$1" && pwd -P); }
say() { echo "dist: $*"; }
fail() { echo "dist: $*" >&2; exit 1; }

for tool in git python3 cc; do
    command -v $tool >/dev/null || fail "needs $tool; on Debian: apt-get install git python3 gcc libc6-dev"
done
commit=$(git rev-parse --verify --quiet HEAD) || fail "a release is made from a commit, and this is no clone of the repository"
[ -z "$(git status --porcelain)" ] || say "what is not committed is left out; this is commit $commit"
out=$(absolute "${1:-target/dist}")
work=$(absolute "${2:-target/dist-work}")
profile=${PROFILE:-release}
sh "$here/tools.sh" cargo-deb cargo-cyclonedx
PATH=$root/target/tools/bin:$PATH

# Nothing of this machine's hour, language or permissions gets in.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH LC_ALL=C TZ=UTC
umask 022
src=$work/src
rm -rf "$src"
mkdir "$src"
git archive "$commit" | tar --extract --directory "$src"
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' "$src/Cargo.toml")
rm -rf "$out"
mkdir "$out"

say "version $version, commit $commit: the executable (minutes: link-time optimization over everything)"
cd "$src"
# A target that is named, if only as the machine's own, keeps the flags from the build scripts and macros, which cannot
# be static.
target=$(rustc --print host-tuple)
cargo fetch --locked --quiet --target "$target"
# Where the sources lie on this machine is told nowhere in the executable.
separator=$(printf '\037')
cargo_home=$(absolute "${CARGO_HOME:-$HOME/.cargo}")
flags="-Ctarget-feature=+crt-static${separator}--remap-path-prefix=$src=/evenkeel"
for registry in "$cargo_home"/registry/src/*; do
    flags="$flags${separator}--remap-path-prefix=$registry=/registry"
done
CFLAGS="-ffile-prefix-map=$work=/evenkeel -ffile-prefix-map=$cargo_home=/cargo" \
CARGO_ENCODED_RUSTFLAGS=$flags CARGO_TARGET_DIR=$work/target CARGO_INCREMENTAL=0 \
    cargo build --locked --quiet --profile "$profile" --target "$target" --bin evenkeel
executable=$work/target/$target/$profile/evenkeel
machine=${target%%-*}
cp "$executable" "$out/evenkeel-$version-$machine-linux"

say "the list of what is in it (SBOM)"
# It counts what any member of the workspace asks of a dependency; sbom.py leaves what cargo says that this one has.
CARGO_NET_OFFLINE=true cargo cyclonedx -qq --format json --describe binaries --target "$target" --spec-version 1.5
cargo tree --locked --package evenkeel --edges normal,build --target "$target" --prefix none --format '{p}' \
    | python3 "$here/sbom.py" evenkeel_bin.cdx.json "$src" >"$out/evenkeel-$version.cdx.json"
find . -name '*.cdx.json' -delete

say "the Debian package"
CARGO_TARGET_DIR=$work/target cargo deb --quiet --no-build --no-strip --locked --target "$target" --profile "$profile" \
    --output "$out/" >/dev/null

if docker info >/dev/null 2>&1; then
    say "the image evenkeel:$version"
    REVISION=$commit sh "$here/image.sh" "$executable" "evenkeel:$version" "$out/evenkeel-$version-image.tar"
else
    echo "!!! dist: there is NO IMAGE among the files: that takes a Docker Engine, and 'docker info' does not answer" >&2
fi

cd "$out"
sha256sum -- * >SHA256SUMS
say "in $out:"
du -b --apparent-size -- *
