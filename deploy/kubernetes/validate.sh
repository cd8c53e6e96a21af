#!/bin/sh
# Checks the manifests of this folder against Kubernetes' own schemas, offline: the validator brings them along.
set -eu
cd "$(dirname "$0")"
tools=../../target/kubernetes-validate
if ! command -v python3 >/dev/null; then
    echo "!!! SKIPPED: the Kubernetes manifests were NOT checked, for want of Python 3" >&2
    exit 0
fi
if [ ! -x $tools/bin/kubernetes-validate ]; then
    python3 -m venv $tools
    $tools/bin/pip install --quiet --disable-pip-version-check 'kubernetes-validate==1.31.0'
fi
$tools/bin/kubernetes-validate --strict *.yaml
