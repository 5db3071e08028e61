#!/bin/sh
# Installs codec/python and codec/reference into a temporary environment and runs their tests, and those of models/recipes that
# need no PyTorch. Where something is missing, one line names it and the exit code is 77.
set -eu
cd "$(dirname "$0")/.."
: "${PYTHON:=python3}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if ! "$PYTHON" -c 'import sys, ensurepip, venv; assert sys.version_info >= (3, 11)' 2> /dev/null; then
    echo "test-python: skipped; missing: Python 3.11 or later with venv (apt install python3-venv, or PYTHON=another interpreter)"
    exit 77
fi
"$PYTHON" -m venv "$folder/venv"
export PATH="$folder/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK=1 CARGO_TARGET_DIR="$PWD/target/python"
if ! pip install --quiet 'maturin>=1.9,<2' 'hatchling>=1.27' 'numpy>=1.24' 'pytest>=8' 'zstandard>=0.22' 2> "$folder/log"; then
    echo "test-python: skipped; missing: a package index from which pip gets maturin, hatchling, numpy, pytest and zstandard" \
        "(pip config set global.index-url URL): $(tail -n 1 "$folder/log")"
    exit 77
fi
pip install --quiet --no-build-isolation ./codec/python ./codec/reference
for package in codec/python codec/reference; do
    python -m pytest --quiet "$package"
done
cd models/recipes
python -m pytest --quiet --noconftest -p no:cacheprovider tests/test_cli.py tests/test_imports.py tests/test_test_set_log.py
