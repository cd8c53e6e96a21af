#!/bin/sh
# The ten slowest tests of a run, from what the harness printed with --report-time.
echo "The slowest tests, in seconds:"
sed -nE 's/^test (.*) \.\.\. ok <([0-9.]+)s>$/\2 \1/p' "$1" | sort -rn | head -n 10 | sed 's/^/    /'
