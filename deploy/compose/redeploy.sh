#!/bin/sh
# Replaces the running proxy of proxy.yaml by one of the image that is there now, without losing a request: starts the new
# one beside it, waits until that has the port, and stops the old one. If the new one does not get ready within WAIT seconds
# (60), it is removed, and the old one goes on. PROJECT names the compose project, if it is not `proxy`.
set -eu
cd "$(dirname "$0")"
if docker compose version >/dev/null 2>&1; then compose="docker compose"; else compose="docker-compose"; fi
# The files name no project: this one's containers are found by its name, whichever folder it was started from.
compose="$compose --project-name ${PROJECT:-proxy} --file proxy.yaml"

old=$($compose ps --quiet proxy)
[ -n "$old" ] || { echo "redeploy: no proxy runs; start one: $compose up --detach" >&2; exit 1; }
count=$(echo "$old" | wc -l)

# The services that run stay as they are, the holder of the address above all.
$compose up --detach --no-deps --no-recreate --scale proxy=$((count + 1)) proxy
new=$($compose ps --quiet proxy | grep -vxF "$old")

since=$(date +%s)
until docker exec "$new" evenkeel ready 2>/dev/null; do
    if [ $(($(date +%s) - since)) -ge "${WAIT:-60}" ]; then
        echo "redeploy: the new proxy is not ready, and is removed; the old one goes on:" >&2
        docker exec "$new" evenkeel ready || true
        docker logs --tail 20 "$new" >&2
        docker rm --force "$new" >/dev/null
        exit 1
    fi
    sleep 1
done

# It answers what it holds, leaves the rest to the new one, and ends by itself when `drain` is over at the latest.
echo "redeploy: the new proxy serves; the old one finishes what it holds"
for container in $old; do
    docker stop --time 600 "$container" >/dev/null
    docker rm "$container" >/dev/null
done
