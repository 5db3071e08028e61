#!/bin/sh
# Builds the tests of the codec, of the int8 kernels and of the way from frames to pixels for aarch64 and runs them emulated, on a
# processor with the dot product and on one without. Where a tool is missing, one line names it and the exit code is 77. RUSTC may
# name any compiler with the target.
set -eu
cd "$(dirname "$0")/.."
: "${CARGO:=cargo}" "${ARM:=aarch64-unknown-linux-gnu}" "${ARM_RUN:=qemu-aarch64-static -L /usr/aarch64-linux-gnu}"
missing=
probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
echo 'fn main() {}' > "$probe/main.rs"
"${RUSTC:-rustc}" --target "$ARM" --emit=metadata -o "$probe/main.rmeta" "$probe/main.rs" 2> /dev/null ||
    missing="$missing, the Rust target (rustup target add $ARM)"
command -v aarch64-linux-gnu-gcc > /dev/null || missing="$missing, a cross compiler (apt install gcc-aarch64-linux-gnu)"
command -v "${ARM_RUN%% *}" > /dev/null || missing="$missing, an emulator (apt install qemu-user-static)"
if [ -n "$missing" ]; then
    echo "test-arm: skipped; missing: ${missing#, }"
    exit 77
fi
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
for cpu in cortex-a72 max; do
    echo "test-arm: $cpu"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$ARM_RUN -cpu $cpu"
    "$CARGO" test --release --locked --target "$ARM" -p narrows-codec -p narrows-int8 --lib --tests
    # Its other tests take minutes where they are emulated; this one holds ARM to the pixels of x86.
    "$CARGO" test --release --locked --target "$ARM" -p narrows-pixels --test everywhere
done
