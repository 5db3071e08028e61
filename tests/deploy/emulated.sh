#!/usr/bin/env bash
# Runs the head of `make dist` for arm64 emulated, on a processor without the dot product (cortex-a72, Raspberry Pi 4) and on
# one with it (cortex-a76, Raspberry Pi 5): the bundle's vectors bit for bit, and photos on the split and on the local path,
# whose lines must be those of the head for amd64 but for times. The tail is the one for amd64.
# Where a tool is missing, one line names it and the exit code is 77.
set -euo pipefail
cd "$(dirname "$0")/../.."
stage=$PWD/dist-out/stage
: "${ARM_RUN:=qemu-aarch64-static}" "${ARM_ROOT:=/usr/aarch64-linux-gnu}"
missing=
[ -x "$stage/arm64/narrows-head" ] && [ -x "$stage/amd64/narrows-tail" ] || missing="$missing, the programs (make dist)"
command -v "$ARM_RUN" >/dev/null || missing="$missing, an emulator (apt install qemu-user-static)"
[ -e "$ARM_ROOT/lib/libc.so.6" ] || missing="$missing, glibc for arm64 (apt install libc6-arm64-cross)"
[ "$(uname -m)" = x86_64 ] || missing="$missing, a processor of the family x86_64"
if [ -n "$missing" ]; then
	echo "test-dist: skipped; missing: ${missing#, }"
	exit 77
fi
folder=$(mktemp -d)
tail_pid=
finish() {
	[ -z "$tail_pid" ] || kill "$tail_pid" 2>/dev/null || true
	rm -rf "$folder"
}
trap finish EXIT
export NARROWS_ORT=$PWD/.runtime/libonnxruntime.so
bundle=models/bundles/lite2
head=$stage/amd64/narrows-head tail=$stage/amd64/narrows-tail

"$tail" certs init --dir "$folder/certs" --name localhost >/dev/null
"$tail" certs device pi --dir "$folder/certs" >/dev/null
"$tail" serve --bundle "$bundle" --listen 127.0.0.1:0 --identity "$folder/certs/server" --port-file "$folder/port" \
	2>"$folder/tail.log" &
tail_pid=$!
until [ -e "$folder/port" ]; do
	kill -0 $tail_pid 2>/dev/null || {
		cat "$folder/tail.log" >&2
		exit 1
	}
	sleep 0.2
done
server=localhost:$(sed 's/.*://' "$folder/port")

# Prints the lines of a file without times, in the order of frames; every frame must have been answered.
without_times() {
	python3 -c '
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert lines and all(line["status"] == "answered" for line in lines), lines
for line in sorted(lines, key=lambda line: line["frame"]):
    del line["captured"], line["ms"]
    print(json.dumps(line, sort_keys=True))' "$1"
}

# Answers the photos with the head that the arguments start; writes $folder/$1-split and $folder/$1-local.
answer() {
	local name=$1
	shift
	# Emulation is slow: an answer may take minutes.
	local photos=(--bundle "$bundle" --source 'bench/photos/*.*g' --source bench/photos/road --device pi --in-flight 1
		--budget 300000 --retry-for 120)
	"$@" run "${photos[@]}" --server "$server" --identity "$folder/certs/devices/pi" >"$folder/raw" 2>"$folder/log" || {
		cat "$folder/log" >&2
		return 1
	}
	without_times "$folder/raw" >"$folder/$name-split"
	"$@" run "${photos[@]}" --path local --tasks classify >"$folder/raw" 2>"$folder/log" || {
		cat "$folder/log" >&2
		return 1
	}
	without_times "$folder/raw" >"$folder/$name-local"
}

answer amd64 "$head"
for cpu in cortex-a72 cortex-a76; do
	emulated=("$ARM_RUN" -cpu "$cpu" -L "$ARM_ROOT" "$stage/arm64/narrows-head")
	"${emulated[@]}" doctor --bundle "$bundle" --json >"$folder/doctor.json" || true
	python3 -c '
import json, sys
checks = {check["what"]: check for check in json.load(open(sys.argv[1]))["checks"]}
for what in ("kernels", "vectors", "local network"):
    print("test-dist: %s: %s: %s" % (sys.argv[2], what, checks[what]["found"]))
    assert checks[what]["state"] == "ok", checks[what]' "$folder/doctor.json" "$cpu"
	answer "$cpu" "${emulated[@]}"
	for path in split local; do
		diff "$folder/amd64-$path" "$folder/$cpu-$path" || {
			echo "test-dist: $cpu answers otherwise than amd64 on the path $path" >&2
			exit 1
		}
		echo "test-dist: $cpu: $(wc -l <"$folder/$cpu-$path") lines of the path $path are those of amd64 but for times"
	done
done
