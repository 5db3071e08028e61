#!/usr/bin/env bash
# Builds the tail for amd64 twice, from two copies of the committed sources in different folders, and compares the bytes.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
export DIST_TOOLS=$PWD/target/dist-tools ONLY=narrows-tail
unset CARGO_TARGET_DIR
for copy in first the-second; do
	git clone --quiet --shared . "$folder/$copy"
	(cd "$folder/$copy" && deploy/dist/build.sh amd64)
done
for file in narrows-tail narrows-tail.cdx.json THIRD-PARTY-LICENCES-narrows-tail; do
	cmp "$folder"/{first,the-second}/dist-out/stage/amd64/$file
done
echo "test-reproducible: passed: $(sha256sum <"$folder/first/dist-out/stage/amd64/narrows-tail" | cut -c1-16)"
