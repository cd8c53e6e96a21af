#!/bin/sh
# Sees to it that the base images of the Dockerfiles and of compose.yaml are there, under names of the testbed's own: no
# image that somebody else may use is made, replaced or removed. An official image that is there, or that a registry
# gives, gets such a name as well. Elsewhere a stand-in is made out of Debian's packages and this machine's own Rust, so
# that the Dockerfiles can be tried as they are written; each carries the label `evenkeel.stand-in`.
set -eu
cd "$(dirname "$0")"

ours=evenkeel-testbed
debian=$ours/debian:bookworm

main() {
    base rust:1.95-slim-bookworm $ours/rust:1.95-slim-bookworm make_rust
    base gcr.io/distroless/cc-debian12:nonroot $ours/distroless:nonroot make_distroless
    base postgres:15 $ours/postgres:15 make_postgres
    # The stand-in of this one is made for those of the others as well.
    base debian:bookworm-slim $debian :
    docker image inspect $ours/systemd >/dev/null 2>&1 || make_systemd
}

# The official image $1 under our name $2, or what $3 makes in its place.
base() {
    docker image inspect "$2" >/dev/null 2>&1 && return
    if docker image inspect "$1" >/dev/null 2>&1; then
        docker tag "$1" "$2"
        return
    fi
    say "pulling $1"
    if timeout 300 docker pull --quiet "$1" >/dev/null 2>&1; then
        docker tag "$1" "$2"
        # The official name was not there before.
        docker image rm "$1" >/dev/null
        return
    fi
    say "no registry has it for us: making a stand-in for $1"
    docker image inspect $debian >/dev/null 2>&1 || make_debian
    $3 "$2"
}

make_debian() {
    command -v debootstrap >/dev/null || {
        as_root apt-get update -q >/dev/null
        as_root apt-get install -q -y --no-install-recommends debootstrap >/dev/null
    }
    root=$(mktemp -d)
    as_root debootstrap --variant=minbase --include=ca-certificates bookworm "$root/debian" >"$root/log" 2>&1 \
        || { tail -n 20 "$root/log" >&2; exit 1; }
    # This machine's way out may have a certificate authority of its own.
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] \
        || as_root cp -L /etc/ssl/certs/ca-certificates.crt "$root/debian/etc/ssl/certs/ca-certificates.crt"
    as_root rm -rf "$root/debian/var/cache/apt/archives" "$root/debian/usr/share/doc" "$root/debian/usr/share/locale"
    as_root tar --create --directory "$root/debian" --exclude ./dev --exclude ./proc --exclude ./sys . \
        | docker import --change 'LABEL evenkeel.stand-in=yes' --change 'CMD ["bash"]' - $debian >/dev/null
    as_root rm -rf "$root"
}

make_rust() {
    version=$(rustc --version | cut -d ' ' -f 2)
    case $version in
        1.95.*) ;;
        *) say "this machine's Rust is $version, and $1 is to be 1.95"; exit 1 ;;
    esac
    context=$(mktemp -d)
    sysroot=$(rustc --print sysroot)
    host=$(rustc --print host-tuple)
    mkdir "$context/rust" "$context/rust/bin"
    cp "$sysroot/bin/cargo" "$sysroot/bin/rustc" "$context/rust/bin"
    tar --create --directory "$sysroot" lib/rustlib/"$host" \
        $(cd "$sysroot" && ls lib/*.so*) | tar --extract --directory "$context/rust"
    cat >"$context/Dockerfile" <<END
FROM $debian
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ENV CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY rust /usr/local/cargo
END
    build "$1" "$context"
}

make_distroless() {
    context=$(mktemp -d)
    cat >"$context/Dockerfile" <<END
FROM $debian AS debian
RUN mkdir -p /root-fs/etc/ssl/certs /root-fs/home/nonroot /root-fs/tmp /root-fs/lib64 \
 && cp -L --parents /lib/*-linux-gnu/libc.so.6 /lib/*-linux-gnu/libm.so.6 /lib/*-linux-gnu/libgcc_s.so.1 \
       /lib/*-linux-gnu/libresolv.so.2 /lib/*-linux-gnu/libpthread.so.0 /lib/*-linux-gnu/libdl.so.2 /root-fs \
 && cp -L /lib64/* /root-fs/lib64 \
 && cp /etc/ssl/certs/ca-certificates.crt /root-fs/etc/ssl/certs \
 && printf 'root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' \
        >/root-fs/etc/passwd \
 && chown 65532:65532 /root-fs/home/nonroot && chmod 1777 /root-fs/tmp
FROM scratch
COPY --from=debian /root-fs /
USER 65532
WORKDIR /home/nonroot
END
    build "$1" "$context"
}

make_postgres() {
    context=$(mktemp -d)
    cp postgres.sh "$context"
    cat >"$context/Dockerfile" <<END
FROM $debian
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql-15 \
 && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/15
ENV PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY postgres.sh /usr/local/bin/postgres.sh
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
CMD ["sh", "/usr/local/bin/postgres.sh"]
END
    build "$1" "$context"
}

# A Debian host, on which tests install the package.
make_systemd() {
    say "making a Debian with systemd"
    context=$(mktemp -d)
    cat >"$context/Dockerfile" <<END
FROM $debian
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends systemd && rm -rf /var/lib/apt/lists/*
STOPSIGNAL SIGRTMIN+3
END
    build $ours/systemd "$context"
}

# Names and labels the image, and leaves nothing else behind.
build() {
    docker build --quiet --label evenkeel.stand-in=yes --tag "$1" "$2" >/dev/null
    rm -rf "$2"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

say() {
    echo "bases: $*" >&2
}

main
