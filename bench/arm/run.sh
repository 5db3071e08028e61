#!/bin/sh
# Builds narrows-bench and a program that runs tract for 64-bit ARM, and the plugin that counts instructions, fetches ONNX Runtime
# for ARM, and runs `narrows-bench arm`. `make micro-arm` calls it. Where a tool is missing, one line names it and the exit code is 77.
#
#   bench/arm/run.sh NARROWS_BENCH [OPTION...]      the program of this machine and further options of `narrows-bench arm`
set -eu
cd "$(dirname "$0")/../.."
: "${CARGO:=cargo}" "${PYTHON:=python3}" "${CC:=cc}" "${ARM:=aarch64-unknown-linux-gnu}" "${BUNDLE:=models/bundles/lite2}"
: "${QEMU:=qemu-aarch64}" "${ARM_SYSROOT:=/usr/aarch64-linux-gnu}"
bench=$1
shift
out=${CARGO_TARGET_DIR:-target}/micro-arm
missing=
probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
echo 'fn main() {}' > "$probe/main.rs"
"${RUSTC:-rustc}" --target "$ARM" --emit=metadata -o "$probe/main.rmeta" "$probe/main.rs" 2> /dev/null ||
    missing="$missing, the Rust target (rustup target add $ARM)"
command -v aarch64-linux-gnu-gcc > /dev/null || missing="$missing, a cross compiler (apt install gcc-aarch64-linux-gnu)"
"$QEMU" --help 2> /dev/null | grep -q -- -plugin ||
    missing="$missing, an emulator that takes plugins (apt install qemu-user; a static one takes none)"
command -v "$CC" > /dev/null || missing="$missing, a C compiler"
if [ -n "$missing" ]; then
    echo "micro-arm: skipped; missing: ${missing#, }"
    exit 77
fi
mkdir -p "$out"

# QEMU loads plugins of the versions of its interface that it speaks alone.
for api in 1 2 3 4 5; do
    "$CC" -shared -fPIC -O2 -DAPI=$api -o "$out/count.so" bench/arm/count.c
    if "$QEMU" -plugin "$out/count.so,out=$probe/none" /none 2>&1 | grep -qi plugin; then
        api=
    else
        break
    fi
done
[ -n "$api" ] || { echo "micro-arm: skipped; bench/arm/count.c knows no plugin interface of this $QEMU"; exit 77; }

"$PYTHON" tail/runtime/fetch.py --build cpu --machine aarch64 "$out/ort"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
CARGO_TARGET_DIR=$out "$CARGO" build --release --locked --target "$ARM" -p narrows-bench --bin narrows-bench
CARGO_TARGET_DIR=$out/tract "$CARGO" build --release --locked --target "$ARM" --manifest-path bench/arm/tract/Cargo.toml
"$bench" arm --bundle "$BUNDLE" --program "$out/$ARM/release/narrows-bench" --plugin "$out/count.so" \
    --runtime "$out/ort/libonnxruntime.so" --tract "$out/tract/$ARM/release/narrows-arm-tract" --sysroot "$ARM_SYSROOT" --emulator "$QEMU" "$@"
