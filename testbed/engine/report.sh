#!/bin/sh
# What became of the tests that need a Docker Engine: they note their names in the file given.
tally=$1
count() { grep -c "^$1 " "$tally" 2>/dev/null || true; }
ran=$(count ran)
skipped=$(count skipped)
[ "${ran:-0}" = 0 ] || echo "$ran tests ran on Docker Engine $(docker version --format '{{.Server.Version}}')."
if [ "${skipped:-0}" != 0 ]; then
    echo
    echo "!!! SKIPPED: $skipped tests that need a Docker Engine on this machine. Why, each said above, by its name."
    echo "!!! What they test (containers, aliases, Docker's own DNS, images) was NOT tested in this run."
fi
if [ "${ran:-0}" = 0 ] && [ "${skipped:-0}" = 0 ]; then
    echo "!!! No test that needs a Docker Engine told whether it ran: $tally is empty or missing."
fi
