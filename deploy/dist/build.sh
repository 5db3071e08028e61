#!/usr/bin/env bash
# Builds the programs and packages of a release into dist-out. `make dist` calls it.
#
#   deploy/dist/build.sh [arm64] [amd64] [armhf]        every processor without an argument
#   ONLY=narrows-tail deploy/dist/build.sh amd64        one program, and no packages
#
# Afterwards dist-out has packages, archives of the programs and SHA256SUMS; dist-out/stage has what they were made from.
#
# The head is built for arm64, armhf and amd64, the tail for arm64 and amd64, all for glibc 2.27, with zig as C compiler and
# linker. Two builds of one commit with one Rust are the same bytes: times are those of the commit (SOURCE_DATE_EPOCH), paths of
# this machine are replaced, archives are sorted. What a toolchain cannot build is said and left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C TZ=UTC PYTHONDONTWRITEBYTECODE=1
cargo=${CARGO:-cargo}
tools=${DIST_TOOLS:-$PWD/target/dist-tools}
stage=$PWD/dist-out/stage
glibc=2.27
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

deploy/dist/tools.sh "$tools"
export PATH=$tools/venv/bin:$tools/bin:$PATH
export CARGO_ZIGBUILD_CACHE_DIR=$tools/cache ZIG_GLOBAL_CACHE_DIR=$tools/cache/zig
home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="--remap-path-prefix=$home=/cargo --remap-path-prefix=$PWD=/narrows"
export CFLAGS="-ffile-prefix-map=$home=/cargo -ffile-prefix-map=$PWD=/narrows"

target_of() {
	case $1 in
	arm64) echo aarch64-unknown-linux-gnu ;;
	armhf) echo armv7-unknown-linux-gnueabihf ;;
	amd64) echo x86_64-unknown-linux-gnu ;;
	*)
		echo "build.sh: there is no processor $1; give arm64, armhf, amd64" >&2
		exit 2
		;;
	esac
}

# Whether Rust's standard library for the target $1 is there, or can be added by rustup.
has_std() {
	[ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] || {
		command -v rustup >/dev/null && timeout 300 rustup target add "$1" >/dev/null 2>&1
	}
}

# Builds the program $1 for the processor $2, checks it and copies it to the folder $3.
build() {
	local program=$1 arch=$2 folder=$3 target report described
	target=$(target_of "$arch")
	report=$tools/$program-$arch.jsonl
	$cargo zigbuild --profile dist --locked --package "$program" --bin "$program" --target "$target.$glibc" \
		--message-format json-render-diagnostics >"$report" || return
	install -m 755 "${CARGO_TARGET_DIR:-target}/$target/dist/$program" "$folder/$program" || return
	deploy/dist/check.sh "$folder/$program" "$arch" || return
	described=(--report "$report" --package "$program" --target "$target" --cargo "$cargo")
	python deploy/dist/sbom.py "${described[@]}" --out "$folder/$program.cdx.json" || return
	python deploy/dist/licences.py "${described[@]}" --out "$folder/THIRD-PARTY-LICENCES-$program"
}

archs=("$@")
[ $# -gt 0 ] || archs=(arm64 amd64 armhf)
rm -rf dist-out
mkdir -p "$stage"
for arch in "${archs[@]}"; do
	target=$(target_of "$arch")
	if ! has_std "$target"; then
		echo "dist: $arch left out: no standard library for it (rustup target add $target)"
		continue
	fi
	mkdir "$stage/$arch"
	for program in ${ONLY:-narrows-head narrows-tail}; do
		if [ "$arch" = armhf ] && [ "$program" = narrows-tail ]; then continue; fi
		if ! build "$program" "$arch" "$stage/$arch"; then
			# Nobody builds tract for 32 bits with every change; the other processors are what a release is for.
			[ "$arch" = armhf ] || exit 1
			echo "dist: $arch left out: $program cannot be built, as said above"
			rm -r "${stage:?}/$arch"
		fi
	done
done
[ -n "${ONLY:-}" ] || deploy/dist/package.sh
