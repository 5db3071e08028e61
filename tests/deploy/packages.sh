#!/usr/bin/env bash
# Installs, starts, upgrades, removes and purges the packages of `make dist` in a Debian of their own: that of amd64 is booted with
# systemd in a container (systemd-nspawn), that of arm64 is emulated (qemu-user), without systemd.
#
#   tests/deploy/packages.sh [amd64] [arm64]
#
# MIRROR and SUITE name another Debian. Where a tool or a package is missing, one line names it and the exit code is 77.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${MIRROR:=http://deb.debian.org/debian}" "${SUITE:=bookworm}"
roots=$PWD/target/roots
archs=("$@")
[ $# -gt 0 ] || archs=(amd64 arm64)

missing=
for arch in "${archs[@]}"; do
	compgen -G "dist-out/narrows-head_*_$arch.deb" >/dev/null || missing="$missing, packages for $arch (make dist)"
	if [ "$arch" = arm64 ] && [ "$(uname -m)" != aarch64 ] && [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
		missing="$missing, programs for arm64 that can be started (apt install qemu-user-static binfmt-support)"
	fi
done
command -v debootstrap >/dev/null || missing="$missing, debootstrap (apt install debootstrap)"
command -v systemd-nspawn >/dev/null || missing="$missing, systemd-nspawn (apt install systemd-container)"
[ "$(id -u)" = 0 ] || missing="$missing, root's rights (sudo make test-packages)"
if [ -n "$missing" ]; then
	echo "test-packages: skipped; missing: ${missing#, }"
	exit 77
fi

# Exposure of at most 2.0 of 10.
for unit in deploy/systemd/*.service; do
	said=$(systemd-analyze security --no-pager --offline=true --threshold=20 "$unit" 2>&1) || {
		grep -v '✓' <<<"$said" >&2
		exit 1
	}
	sed -n 's/^→ /test-packages: /p' <<<"$said"
done

# Makes the packages of the next version, in which the settings' comments differ, for the processor $1 in the folder $2.
next_version() {
	local arch=$1 folder=$2 package scratch
	scratch=$(mktemp -d)
	mkdir -p "$folder"
	for package in narrows-head narrows-tail; do
		dpkg-deb --raw-extract "dist-out/$package"_*_"$arch.deb" "$scratch/$package"
		sed -i 's/^Version: .*/&+next/' "$scratch/$package/DEBIAN/control"
		echo "# A line of the next version." >>"$scratch/$package/etc/narrows/${package#narrows-}.toml"
		dpkg-deb --root-owner-group -Zgzip -z1 --build "$scratch/$package" "$folder" >/dev/null
	done
	rm -rf "$scratch"
}

for arch in "${archs[@]}"; do
	base=$roots/$SUITE-$arch
	if [ ! -e "$base/complete" ]; then
		echo "test-packages: making a $SUITE for $arch in $base"
		rm -rf "$base"
		mkdir -p "$roots"
		debootstrap --arch="$arch" --variant=minbase --include=systemd,systemd-sysv,libstdc++6 "$SUITE" "$base" "$MIRROR" \
			>"$base.log" || {
			tail -n 20 "$base.log" >&2
			exit 1
		}
		touch "$base/complete"
	fi
	root=$roots/run-$arch
	rm -rf "$root"
	cp -a --reflink=auto "$base" "$root"
	mkdir -p "$root/packages" "$root/photos"
	echo "127.0.0.1 localhost" >"$root/etc/hosts"
	cp dist-out/*_"$arch.deb" dist-out/*_all.deb "$root/packages"
	[ "$arch" = armhf ] || next_version "$arch" "$root/packages/upgrade"
	cp bench/photos/*.jpg "$root/photos"
	install -m 755 tests/deploy/lifecycle.sh "$root/lifecycle.sh"
	if [ "$arch" = amd64 ]; then
		cat >"$root/etc/systemd/system/lifecycle.service" <<-UNIT
			[Unit]
			After=basic.target
			[Service]
			Type=oneshot
			ExecStart=/lifecycle.sh
			ExecStopPost=/bin/systemctl --no-block exit 0
			StandardOutput=file:/lifecycle.log
			StandardError=inherit
		UNIT
		mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
		ln -s ../lifecycle.service "$root/etc/systemd/system/multi-user.target.wants"
		timeout 1200 systemd-nspawn --quiet --directory "$root" --register=no --keep-unit --boot --private-network \
			>"$root/boot.log" 2>&1 </dev/null || true
	else
		mount --bind /proc "$root/proc"
		timeout 1800 chroot "$root" /lifecycle.sh >"$root/lifecycle.log" 2>&1 || true
		umount "$root/proc"
	fi
	sed "s/^/$arch: /" "$root/lifecycle.log"
	grep -q '^lifecycle: passed' "$root/lifecycle.log" || {
		echo "test-packages: failed for $arch; its root is $root" >&2
		exit 1
	}
	rm -rf "$root"
done
