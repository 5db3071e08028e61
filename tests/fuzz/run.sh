#!/bin/sh
# Runs every fuzz target for SECONDS, beginning with its seeds. With a second argument the inputs that were found are kept in that
# folder, and used again. Where a tool is missing, one line names it and the exit code is 77.
set -eu
cd "$(dirname "$0")/../.."
: "${CARGO:=cargo}" "${CXX:=c++}"
seconds=${1:?run.sh SECONDS [FOLDER]}
missing=
"$CARGO" +nightly --version > /dev/null 2>&1 || missing="$missing, a nightly compiler (rustup toolchain install nightly)"
"$CARGO" fuzz --version > /dev/null 2>&1 || missing="$missing, cargo-fuzz (cargo install --locked cargo-fuzz)"
command -v "$CXX" > /dev/null || missing="$missing, a C++ compiler (apt install g++)"
if [ -n "$missing" ]; then
    echo "fuzz: skipped; missing: ${missing#, }"
    exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$CARGO" +nightly fuzz build --fuzz-dir tests/fuzz
for seeds in tests/fuzz/corpus-seed/*; do
    target=${seeds##*/}
    found=${2:-$scratch}/$target
    mkdir -p "$found"
    log=$scratch/$target.log
    if ! "$CARGO" +nightly fuzz run --fuzz-dir tests/fuzz "$target" "$found" "$seeds" -- \
        -max_total_time="$seconds" -timeout=60 > "$log" 2>&1; then
        cat "$log"
        exit 1
    fi
    echo "fuzz: $target: $(tail -n 1 "$log")"
done
