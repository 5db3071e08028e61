#!/usr/bin/env bash
# Makes the packages and archives of what build.sh left in dist-out/stage: narrows-head and narrows-tail with cargo-deb, the bundle
# with dpkg-deb, since cargo-deb makes none for all processors.
set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C TZ=UTC
tools=$PWD/target/dist-tools out=$PWD/dist-out stage=$PWD/dist-out/stage bundle=models/bundles/lite2
export PATH=$tools/venv/bin:$tools/bin:$PATH
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
maintainer="The narrows contributors <narrows@users.noreply.github.com>"
umask 022

# The processor of this machine, whose programs write man pages, completions and settings for all.
case $(uname -m) in
x86_64) own=amd64 ;;
aarch64) own=arm64 ;;
*) own= ;;
esac
if [ ! -x "$stage/$own/narrows-head" ] || [ ! -x "$stage/$own/narrows-tail" ]; then
	echo "package.sh: the programs for this machine are needed, which write man pages and settings: deploy/dist/build.sh $own" >&2
	exit 2
fi

any=$stage/any
rm -rf "$any"
mkdir -p "$any/man" "$any/completions"
for program in narrows-head narrows-tail; do
	"$stage/$own/$program" manual --man "$any/man" --completions "$any/completions"
done

# Sets the key $2 of the settings in the file $1 to $3: the line that shows it in a comment becomes that setting.
set_key() {
	grep -q "^#$2 = " "$1" || {
		echo "package.sh: $1 shows no key $2" >&2
		exit 1
	}
	sed -i "0,/^#$2 = .*/s||$2 = $3|" "$1"
}
"$stage/$own/narrows-head" config >"$any/head.toml"
set_key "$any/head.toml" bundle '"/usr/share/narrows/bundles/lite2"'
set_key "$any/head.toml" identity '"/var/lib/narrows-head/identity"'
"$stage/$own/narrows-tail" config >"$any/tail.toml"
set_key "$any/tail.toml" bundle '["/usr/share/narrows/bundles/lite2"]'
set_key "$any/tail.toml" listen '"0.0.0.0:7461"'
set_key "$any/tail.toml" identity '"/var/lib/narrows-tail/identity"'

# Makes the folder $1, which has DEBIAN/control, into a package.
debian_package() {
	local folder=$1 name
	name=$(sed -n 's/^Package: //p' "$folder/DEBIAN/control")
	echo "Installed-Size: $(du -sk --apparent-size --exclude=DEBIAN "$folder" | cut -f1)" >>"$folder/DEBIAN/control"
	find "$folder" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group -Zxz -z3 --build "$folder" "$out/${name}_${bundle_version}_all.deb" >/dev/null
}

bundle_version=$(sed -n 's/^version = "\(.*\)"/\1/p' $bundle/manifest.toml | head -n 1)
# What a device reads: its networks, tables and labels, and the vectors that `narrows-head doctor` checks. The rest is the server's.
on_device() {
	case $1 in
	*/vectors/*.png | */vectors/*.packet | */vectors/*.symbols | */vectors/*.logits | */vectors/SOURCES.md) true ;;
	*/manifest.toml | */CARD.md | */head.onnx | */local.onnx | */tables.bin | */labels-*.tsv) true ;;
	*) false ;;
	esac
}
for package in narrows-bundle-lite2 narrows-bundle-lite2-server; do
	folder=$stage/$package
	rm -rf "$folder"
	mkdir -p "$folder/DEBIAN" "$folder/usr/share/doc/$package"
	git ls-files $bundle | while read -r file; do
		if [ "$package" = narrows-bundle-lite2 ] && ! on_device "$file"; then continue; fi
		if [ "$package" = narrows-bundle-lite2-server ] && on_device "$file"; then continue; fi
		install -D -m 644 "$file" "$folder/usr/share/narrows/bundles/${file#models/bundles/}"
	done
	cat >"$folder/usr/share/doc/$package/copyright" <<-COPYRIGHT
		Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
		Upstream-Name: narrows
		Source: https://github.com/narrows/narrows

		Files: *
		Copyright: the narrows contributors, and those whom CARD.md in the bundle names
		License: Apache-2.0
		 On Debian systems the text of the licence is in /usr/share/common-licenses/Apache-2.0.
	COPYRIGHT
	cat >"$folder/DEBIAN/control" <<-CONTROL
		Package: $package
		Version: $bundle_version
		Architecture: all
		Section: science
		Priority: optional
		Maintainer: $maintainer
		Homepage: https://github.com/narrows/narrows
	CONTROL
done
cat >>"$stage/narrows-bundle-lite2/DEBIAN/control" <<CONTROL
Enhances: narrows-head
Description: narrows: the networks that a device runs, EfficientNet-Lite2 cut at stride 8
 The head network, its tables and labels, the local network with which a device
 answers alone, and the test vectors that both are checked with.
CONTROL
cat >>"$stage/narrows-bundle-lite2-server/DEBIAN/control" <<CONTROL
Depends: narrows-bundle-lite2 (= $bundle_version)
Enhances: narrows-tail
Description: narrows: the networks that a server runs, EfficientNet-Lite2 cut at stride 8
 The tail networks for classification and segmentation, the unsplit networks for
 devices that send images, and their test vectors.
CONTROL
debian_package "$stage/narrows-bundle-lite2"
debian_package "$stage/narrows-bundle-lite2-server"

for arch in arm64 amd64 armhf; do
	[ -d "$stage/$arch" ] || continue
	case $arch in
	arm64) target=aarch64-unknown-linux-gnu machine=aarch64 ;;
	amd64) target=x86_64-unknown-linux-gnu machine=x86_64 ;;
	armhf) target=armv7-unknown-linux-gnueabihf machine= ;;
	esac
	ln -sfn "$arch" "$stage/current"
	for program in narrows-head narrows-tail; do
		[ -x "$stage/$arch/$program" ] || continue
		if [ $program = narrows-tail ]; then
			python3 tail/runtime/fetch.py --build cpu --machine "$machine" "$stage/$arch/onnxruntime"
		fi
		cargo-deb deb --no-build --no-strip --target "$target" --package "$program" \
			--output "$out/${program}_${version}-1_$arch.deb" >/dev/null
		# The program alone, for systems without dpkg.
		name=$program-$version-linux-$arch
		folder=$stage/archive/$name
		rm -rf "$folder"
		mkdir -p "$folder/completions" "$folder/man"
		install -m 755 "$stage/$arch/$program" "$folder"
		install -m 644 "$stage/$arch/$program.cdx.json" LICENSE-APACHE LICENSE-MIT "$any/${program#narrows-}.toml" "$folder"
		install -m 644 "$stage/$arch/THIRD-PARTY-LICENCES-$program" "$folder/THIRD-PARTY-LICENCES"
		install -m 644 "$any/man/$program"*.1 "$folder/man"
		install -m 644 "$any/completions/"*"$program"* "$folder/completions"
		install -m 644 "deploy/systemd/$program.service" "$folder"
		tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$stage/archive" -cf - "$name" |
			xz -T1 -6 >"$out/$name.tar.xz"
		install -m 644 "$stage/$arch/$program.cdx.json" "$out/$name.cdx.json"
	done
done
(cd "$out" && sha256sum -- *.deb *.tar.xz *.cdx.json >SHA256SUMS)
(cd "$out" && stat --format '%s %n' -- *.deb *.tar.xz *.cdx.json | awk '{ printf "%9.2f MB  %s\n", $1 / 1e6, $2 }')
