#!/usr/bin/env bash
# Builds the images of deploy/container from the programs of `make dist` and starts tail and Prometheus with deploy/compose: not as
# root, without capabilities, on read-only file systems. Both become healthy, a head in another container has photos answered, and
# Prometheus counts them.
#
# BASE names an image to build on; without it a Debian is made with debootstrap, which needs no registry of images. Prometheus is
# PROMETHEUS_IMAGE, else Debian's package on that base. Grafana is not started.
# OCI_RUNTIME names another runtime than podman's (runc where control groups are mixed of both versions). Where a tool is missing, one
# line names it and the exit code is 77.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${MIRROR:=http://deb.debian.org/debian}" "${SUITE:=bookworm}"
work=$PWD/target/containers
missing=
[ -x dist-out/stage/amd64/narrows-tail ] && [ -x dist-out/stage/amd64/narrows-head ] || missing="$missing, the programs (make dist)"
command -v podman >/dev/null || missing="$missing, podman (apt install podman)"
command -v podman-compose >/dev/null || missing="$missing, podman-compose (pip install podman-compose)"
if [ -z "${BASE:-}" ]; then
	command -v debootstrap >/dev/null || missing="$missing, debootstrap (apt install debootstrap)"
	[ "$(id -u)" = 0 ] || missing="$missing, root's rights for debootstrap, or BASE=IMAGE"
fi
if [ -n "$missing" ]; then
	echo "test-containers: skipped; missing: ${missing#, }"
	exit 77
fi

mkdir -p "$work"
podman_() {
	podman --root "$work/storage" --runroot "$work/run" ${OCI_RUNTIME:+--runtime "$OCI_RUNTIME"} --cgroup-manager cgroupfs \
		--events-backend file --log-level fatal "$@"
}
# A process may have no right to raise its limits, which podman would do.
limits=(--ulimit "nofile=$(ulimit -Hn):$(ulimit -Hn)" --ulimit nproc=4096:4096)
folder=$(mktemp -d)
finish() {
	compose down --timeout 2 --volumes >/dev/null 2>&1 || true
	rm -rf "$folder"
}
trap finish EXIT

# podman as compose starts it: with the folders and limits above.
{
	echo '#!/bin/bash'
	declare -f podman_
	declare -p work limits
	echo "OCI_RUNTIME=${OCI_RUNTIME:-}"
	# shellcheck disable=SC2016 # expanded where it runs
	echo 'if [ "$1" = run ] || [ "$1" = create ]; then podman_ "$1" "${limits[@]}" "${@:2}"; else podman_ "$@"; fi'
} >"$folder/podman"
chmod 755 "$folder/podman"
compose() {
	podman-compose --podman-path "$folder/podman" --file deploy/compose/compose.yaml "$@"
}

if [ -z "${BASE:-}" ]; then
	BASE=localhost/narrows-base
	if ! podman_ image exists $BASE; then
		root=$PWD/target/roots/base
		if [ ! -e "$root.complete" ]; then
			echo "test-containers: making a $SUITE in $root"
			rm -rf "$root"
			mkdir -p "$PWD/target/roots"
			debootstrap --variant=minbase --include=ca-certificates,libstdc++6,prometheus "$SUITE" "$root" "$MIRROR" >"$root.log" || {
				tail -n 20 "$root.log" >&2
				exit 1
			}
			touch "$root.complete"
		fi
		tar -C "$root" -cf - . | podman_ import - $BASE >/dev/null
	fi
fi
for image in tail head; do
	podman_ build --quiet --format docker --network none "${limits[@]}" --build-arg "BASE=$BASE" -f "deploy/container/$image.Containerfile" \
		-t "narrows-$image" . >/dev/null
	echo "test-containers: narrows-$image is $(podman_ image inspect --format '{{.Size}}' "narrows-$image" | awk '{ printf "%.0f MB", $1 / 1e6 }')," \
		"of which the base is $(podman_ image inspect --format '{{.Size}}' "$BASE" | awk '{ printf "%.0f MB", $1 / 1e6 }')"
done

printf 'FROM %s\nUSER 65534\nWORKDIR /prometheus\nENTRYPOINT ["prometheus"]\nCMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]\n' \
	"$BASE" | podman_ build --quiet --network none "${limits[@]}" -t narrows-test-prometheus -f - . >/dev/null

tail=dist-out/stage/amd64/narrows-tail
"$tail" certs init --dir "$folder/certs" --name tail >/dev/null
"$tail" certs device board --dir "$folder/certs" >/dev/null
chown -R 10001:10001 "$folder/certs"
chmod 755 "$folder"
export NARROWS_IDENTITY=$folder/certs/server NARROWS_TAIL_IMAGE=localhost/narrows-tail NARROWS_GRAFANA_PASSWORD=unused
export PROMETHEUS_IMAGE=${PROMETHEUS_IMAGE:-localhost/narrows-test-prometheus}
compose up --detach tail prometheus >"$folder/compose.log" 2>&1 || {
	cat "$folder/compose.log" >&2
	exit 1
}

# Waits until the service $1 is healthy. `podman healthcheck run` needs no timer of systemd.
healthy() {
	local left=180
	until podman_ healthcheck run "narrows_$1_1" >/dev/null 2>&1; do
		left=$((left - 1))
		if [ $left = 0 ]; then
			podman_ logs "narrows_$1_1" >&2
			echo "test-containers: $1 is not healthy" >&2
			exit 1
		fi
		sleep 1
	done
	echo "test-containers: $1 is healthy"
}
healthy tail
healthy prometheus

podman_ run --rm "${limits[@]}" --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges --network narrows_default \
	--volume "$folder/certs/devices/board:/identity:ro" --volume "$PWD/bench/photos:/photos:ro" narrows-head \
	run --bundle /usr/share/narrows/bundles/lite2 --server tail:7461 --identity /identity --source /photos >"$folder/lines"
python3 -c '
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert len(lines) == 5 and all(line["status"] == "answered" and line["path"] == "split" for line in lines), lines
print("test-containers: the head has", len(lines), "photos answered by the tail")' "$folder/lines"

query() {
	podman_ exec narrows_prometheus_1 promtool query instant http://127.0.0.1:9090 "$1" 2>/dev/null
}
left=60
until query 'narrows_inference_requests_total{job="narrows-tail", outcome="answered"}' | grep -q '=> 5 '; do
	left=$((left - 1))
	[ $left -gt 0 ] || {
		podman_ logs narrows_prometheus_1 >&2
		exit 1
	}
	sleep 1
done
podman_ exec narrows_prometheus_1 promtool query instant http://127.0.0.1:9090 'ALERTS' >/dev/null
echo "test-containers: Prometheus has counted the answers"
podman_ stop --time 30 narrows_tail_1 >/dev/null
[ "$(podman_ inspect --format '{{.State.ExitCode}}' narrows_tail_1)" = 0 ] || {
	podman_ logs narrows_tail_1 >&2
	exit 1
}
echo "test-containers: the tail drains and ends with exit code 0"
echo "test-containers: passed"
