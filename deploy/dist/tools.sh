#!/usr/bin/env bash
# Fetches the tools of `make dist` into the folder $1: zig's linker and cargo-zigbuild, the CycloneDX library, cargo-deb.
# What is there already in the pinned version stays.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tools=$1
cargo_deb=3.8.0

if ! cmp --silent "$here/requirements.txt" "$tools/requirements.txt"; then
	"${PYTHON:-python3}" -m venv --clear "$tools/venv"
	"$tools/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
	cp "$here/requirements.txt" "$tools/requirements.txt"
fi
if [ "$("$tools/bin/cargo-deb" --version 2>/dev/null)" != "$cargo_deb" ]; then
	"${CARGO:-cargo}" install --quiet --locked --root "$tools" --target-dir "$tools/build" --version "$cargo_deb" cargo-deb
	rm -rf "$tools/build"
fi
