#!/bin/sh
# What became of the tests that need a Docker Engine: they note their names in the file given, and cargo counts those that
# could not run as passed.
tally=$1
count() { grep -c "^$1 " "$tally" 2>/dev/null || true; }
ran=$(count ran)
skipped=$(count skipped)
[ "${ran:-0}" = 0 ] || echo "$ran tests ran on Docker Engine $(docker version --format '{{.Server.Version}}')."
if [ "${skipped:-0}" != 0 ]; then
    echo
    echo "!!! SKIPPED: $skipped tests that need a Docker Engine on this machine, which cargo counts as passed:"
    sed -n 's/^skipped /!!!   /p' "$tally"
    echo "!!! Why, each said above. What they test (containers, aliases, Docker's own DNS, images) was NOT tested in this run."
fi
if [ "${ran:-0}" = 0 ] && [ "${skipped:-0}" = 0 ]; then
    echo "!!! No test that needs a Docker Engine told whether it ran: $tally is empty or missing."
fi
