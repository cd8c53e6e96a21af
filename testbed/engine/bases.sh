#!/bin/sh
# Makes the base images that this repository's Dockerfiles and compose.yaml name, on an engine that cannot pull them.
#
# They carry the official names, so the files build as written: Debian from its archive by debootstrap, the Rust
# toolchain of this machine, PostgreSQL from Debian with an entrypoint that understands POSTGRES_USER, POSTGRES_PASSWORD
# and POSTGRES_DB as the official one does. An image that is there already, pulled or made, is left alone.
# Needs root, debootstrap and a Rust toolchain of the version that the Dockerfile names.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
suite=bookworm
debian=debian:$suite-slim
rust=$(sed -n 's/^FROM \(rust:[^ ]*\) AS .*/\1/p' "$root/Dockerfile" | head -n 1)
postgres=$(sed -n 's/^ *image: *\(postgres:.*\)/\1/p' "$root/compose.yaml" | head -n 1)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM

missing() { ! docker image inspect "$1" >/dev/null 2>&1; }

if missing "$debian"; then
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$work/debian" >"$work/log" 2>&1 ||
        { cat "$work/log" >&2; exit 1; }
    # Where this machine trusts a certificate of its own, builds that fetch through it have to as well.
    cp /etc/ssl/certs/ca-certificates.crt "$work/debian/etc/ssl/certs/"
    rm -rf "$work/debian/var/cache/apt/archives" "$work/debian/usr/share/doc"
    tar -C "$work/debian" -c . | docker import --change 'CMD ["bash"]' - "$debian" >/dev/null
    rm -rf "$work/debian"
    echo "made $debian"
fi

if missing "$rust"; then
    version=${rust#rust:} version=${version%%-*}
    rustc --version | grep -q "^rustc $version\." ||
        { echo "$rust needs rustc $version here; found $(rustc --version)" >&2; exit 1; }
    mkdir "$work/rust"
    tar -C "$(rustc --print sysroot)" -cf "$work/rust/toolchain.tar" bin/cargo bin/rustc lib libexec
    cat >"$work/rust/Dockerfile" <<END
FROM $debian
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ADD toolchain.tar /usr/local/
ENV CARGO_HOME=/usr/local/cargo
END
    docker build --quiet --tag "$rust" "$work/rust" >/dev/null
    echo "made $rust"
fi

if missing "$postgres"; then
    version=${postgres#postgres:} version=${version%%-*}
    mkdir "$work/postgres"
    cat >"$work/postgres/entrypoint" <<'END'
#!/bin/sh
set -eu
export PGDATA=/var/lib/postgresql/data
user=${POSTGRES_USER:-postgres}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "${POSTGRES_PASSWORD:?must be set}" >/tmp/password
    initdb --username="$user" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    [ "${POSTGRES_DB:-$user}" = postgres ] ||
        echo "CREATE DATABASE \"${POSTGRES_DB:-$user}\"" | postgres --single postgres
fi
exec postgres -c 'listen_addresses=*' "$@"
END
    chmod 755 "$work/postgres/entrypoint"
    cat >"$work/postgres/Dockerfile" <<END
FROM $debian
RUN apt-get update && apt-get install -y --no-install-recommends postgresql-$version && rm -rf /var/lib/apt/lists/* \\
 && rm -rf /var/lib/postgresql/$version && install -d -o postgres -g postgres -m 700 /var/lib/postgresql/data
ENV PATH=/usr/lib/postgresql/$version/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY entrypoint /usr/local/bin/
USER postgres
EXPOSE 5432
STOPSIGNAL SIGINT
CMD ["entrypoint"]
END
    docker build --quiet --tag "$postgres" "$work/postgres" >/dev/null
    echo "made $postgres"
fi
