#!/bin/sh
# Checks that this machine has what the build, the demo and the tests need beside Rust: a C compiler with its linker (for
# the allocator and the tests' TLS) and PostgreSQL's server (the demo and the tests run a private one).
#
# On Debian and its relatives it installs what is missing, as root or through sudo. Elsewhere, and without that right, it
# names the command that installs it and fails. No database is made and no server started: Debian's package alone would
# start one on port 5432.
set -eu

# Where this machine's files begin. Only the tests of this script say something else.
root=${SETUP_ROOT-}

main() {
    system=$(system)
    missing=$(missing)
    if [ "$system" = macos ]; then
        [ -z "$missing" ] || remedy
        needs_linux
        exit 1
    fi
    [ -n "$missing" ] || exit 0
    if [ "$system" != debian ] || ! command -v apt-get >/dev/null || ! may_install; then
        remedy
        exit 1
    fi
    install_on_debian
}

# The family whose package manager and names of packages this system uses.
system() {
    if [ "$(uname -s)" = Darwin ]; then echo macos; return; fi
    for name in $(release); do
        case $name in
            debian | ubuntu) echo debian; return ;;
            fedora | rhel | centos) echo fedora; return ;;
            alpine) echo alpine; return ;;
            arch) echo arch; return ;;
        esac
    done
    echo unknown
}

# The names of this system and of those that it is like, the nearest first (os-release(5)).
release() {
    for file in "$root/etc/os-release" "$root/usr/lib/os-release"; do
        if [ -r "$file" ]; then
            # The file is made to be read by a shell; its variables stay in this subshell.
            # shellcheck disable=SC1090
            (ID='' ID_LIKE=''; . "$file"; echo "$ID $ID_LIKE")
            return
        fi
    done
}

missing() {
    has_compiler || echo compiler
    has_postgresql || echo postgresql
}

has_compiler() {
    # macOS has a `cc` that only offers to install the real one.
    if [ "$system" = macos ]; then xcode-select -p >/dev/null 2>&1; else command -v cc >/dev/null; fi
}

# As the testbed looks for it: Debian's folder is not in PATH.
has_postgresql() {
    for program in "$root"/usr/lib/postgresql/*/bin/initdb "$root"/opt/homebrew/opt/postgresql*/bin/initdb; do
        [ -x "$program" ] && return
    done
    command -v initdb >/dev/null
}

# The packages of what is missing, under this system's names.
packages() {
    list=
    for part in $missing; do
        case $system:$part in
            debian:compiler) list="$list gcc libc6-dev" ;;
            alpine:compiler) list="$list gcc musl-dev" ;;
            macos:compiler) ;; # xcode-select installs it
            *:compiler) list="$list gcc" ;;
            fedora:postgresql) list="$list postgresql-server" ;;
            macos:postgresql) list="$list postgresql@17" ;;
            *) list="$list $part" ;;
        esac
    done
    echo "${list# }"
}

remedy() {
    {
        echo "setup: this machine lacks:"
        for part in $missing; do
            case $part in
                compiler) echo "  - a C compiler (cc), which also links Rust's programs" ;;
                postgresql) echo "  - PostgreSQL's server (initdb), which the demo and the tests run privately" ;;
            esac
        done
        packages=$(packages)
        if [ "$system" = macos ]; then as=; else as=" as root"; fi
        echo "setup: to install that, run$as:"
        case $system in
            debian) echo "    apt-get update && apt-get install --no-install-recommends $packages" ;;
            fedora) echo "    dnf install $packages" ;;
            alpine) echo "    apk add $packages" ;;
            arch) echo "    pacman -S --needed $packages" ;;
            macos)
                case $missing in *compiler*) echo "    xcode-select --install" ;; esac
                [ -z "$packages" ] || echo "    brew install $packages"
                ;;
            *) echo "    the package manager of this system; the packages may be called $packages" ;;
        esac
        case $system:$missing in
            debian:*postgresql*)
                echo "setup: by itself that package starts a server on port 5432, which is not used here;" \
                    "\`sh testbed/setup.sh\` as root installs it without"
                ;;
        esac
    } >&2
}

needs_linux() {
    cat >&2 <<'END'
setup: on macOS the proxy, `evenkeel check`, `evenkeel status` and the unit tests (`cargo test --lib`) should build. The demo
setup: and the other tests need Linux: each of their replicas has an address of its own in 127.0.0.0/8. In a container:
    docker run --rm -it -v "$PWD":/src -w /src -e CARGO_TARGET_DIR=/tmp/target rust:1.95-bookworm make demo
END
}

# As root, or through sudo, if that needs no password or can ask for it.
may_install() {
    sudo=
    [ "$(id -u)" != 0 ] || return 0
    sudo=sudo
    command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }
}

install_on_debian() {
    packages=$(packages)
    echo "setup: installing $packages"
    $sudo apt-get update -q
    # shellcheck disable=SC2086 # a list
    case $missing in
        *postgresql*) install_without_cluster $packages ;;
        *) install $packages ;;
    esac
}

install() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; }

# A file of postgresql-common's, which therefore comes first, says whether PostgreSQL's package makes a cluster and starts
# it. Afterwards the file is what it was.
install_without_cluster() {
    install postgresql-common
    settings=$root/etc/postgresql-common/createcluster.conf
    before=$(mktemp)
    cp "$settings" "$before"
    echo 'create_main_cluster = false' | $sudo tee -a "$settings" >/dev/null
    status=0
    install "$@" || status=$?
    $sudo cp "$before" "$settings"
    rm -f "$before"
    return "$status"
}

main
