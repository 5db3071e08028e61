#!/usr/bin/env bash
# Checks the program $1, built for the processor $2 (arm64, armhf, amd64): what it needs of the system that it runs on.
#
# * No symbol newer than glibc 2.27, which is that of JetPack 4 (Ubuntu 18.04).
# * No shared library besides glibc's own.
# * On arm64, segments aligned to 64 KiB: kernels there have pages of 4, 16 (Raspberry Pi 5) or 64 KiB.
# * No path of the machine that built it.
set -euo pipefail
export LC_ALL=C
program=$1 arch=$2 floor=${GLIBC:-2.27}

fail() {
	echo "$program: $*" >&2
	exit 1
}

newest=$(readelf --wide --version-info "$program" | grep -o 'GLIBC_[0-9.]*' | sed s/GLIBC_// | sort -Vu | tail -n 1)
[ -n "$newest" ] || fail "has no versions of glibc's symbols"
[ "$(printf '%s\n' "$newest" "$floor" | sort -V | tail -n 1)" = "$floor" ] || fail "needs glibc $newest, more than $floor"

needed=$(readelf --wide --dynamic "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
for library in $needed; do
	case $library in
	libc.so.6 | libm.so.6 | libpthread.so.0 | libdl.so.2 | librt.so.1 | ld-linux*) ;;
	*) fail "needs $library" ;;
	esac
done

if [ "$arch" = arm64 ]; then
	for align in $(readelf --wide --program-headers "$program" | awk '$1 == "LOAD" { print $NF }'); do
		((align >= 0x10000)) || fail "a segment is aligned to $align, less than a page of 64 KiB"
	done
fi

readelf --wide --sections "$program" | grep -q '\.debug_info\|\.symtab' && fail "is not stripped"
for path in "$PWD" "${CARGO_HOME:-$HOME/.cargo}"; do
	! grep --quiet --fixed-strings --text -- "$path/" "$program" || fail "has the path $path in it"
done
printf '%-8s %-16s %6.1f MB, glibc %s or newer\n' "$arch" "$(basename "$program")" \
	"$(($(stat -c %s "$program") / 10000))e-2" "$newest"
