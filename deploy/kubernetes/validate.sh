#!/bin/sh
# Checks the manifests of this folder against Kubernetes' own schemas, offline: the validator brings them along.
set -eu
cd "$(dirname "$0")"
tools=../../target/kubernetes-validate
skip() {
    echo "!!! SKIPPED: the Kubernetes manifests were NOT checked: $1" >&2
    exit 0
}

if [ ! -x $tools/bin/kubernetes-validate ]; then
    rm -rf $tools
    python3 -m venv $tools || skip "that takes Python 3 with venv (Debian: python3-venv)"
    $tools/bin/pip install --quiet --disable-pip-version-check 'kubernetes-validate==1.31.0' || skip "PyPI is out of reach"
fi
$tools/bin/kubernetes-validate --strict *.yaml
