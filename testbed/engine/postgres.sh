#!/bin/sh
# What the stand-in for the image `postgres` runs: as much of the official image's behaviour as compose.yaml uses.
set -eu
data=/var/lib/postgresql/data
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }

if [ ! -s "$data/PG_VERSION" ]; then
    chown postgres:postgres "$data"
    chmod 700 "$data"
    printf %s "${POSTGRES_PASSWORD:?}" >/tmp/password
    chown postgres /tmp/password
    as_postgres initdb --pgdata "$data" --username "$POSTGRES_USER" --pwfile /tmp/password --auth scram-sha-256 \
        --encoding UTF8 --locale C.UTF-8
    rm /tmp/password
    echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | as_postgres postgres --single -D "$data" postgres
fi
mkdir -p /var/run/postgresql
chown postgres:postgres /var/run/postgresql
exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D "$data" -c "listen_addresses=*"
