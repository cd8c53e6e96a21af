#!/bin/sh
# What became of the tests that need a Docker Engine: they note their names in the file given.
tally=$1
ran=$(grep -c '^ran ' "$tally" 2>/dev/null)
skipped=$(grep -c '^skipped ' "$tally" 2>/dev/null)
if [ "${skipped:-0}" -gt 0 ]; then
    echo
    echo "!!! SKIPPED: $skipped tests need a Docker Engine, and \`docker info\` does not answer."
    echo "!!! What containers, aliases and Docker's own DNS do was NOT tested in this run."
else
    echo "${ran:-0} tests ran on Docker Engine $(docker version --format '{{.Server.Version}}')."
fi
