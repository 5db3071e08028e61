#!/bin/sh
# Where a busy server's time goes: in ONNX Runtime, in the operating system, or in its own code (decoding packets, tensors,
# answers, the wire). Loads a server on this machine with as many frames as it takes and samples it by perf.
#
#   bench/profile-tail.sh NARROWS_BENCH BUNDLE TASK...
#
# The share of the kernel holds the page faults and the waiting of ONNX Runtime's threads. Where a tool is missing, one line names
# it and the exit code is 77.
set -eu
bench=$1 bundle=$2
shift 2
command -v perf > /dev/null || { echo "profile-tail: skipped; missing: perf (apt install linux-perf)"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for task in "$@"; do
    "$bench" load --bundle "$bundle" --scenario offline --seconds 8 --tasks "$task" > "$folder/load" 2>&1 &
    load=$!
    # The server is a child of the load, beside those that make certificates; it loads its networks first.
    tail=
    for _ in $(seq 100); do
        tail=$(pgrep -P $load -f ' serve ') && break
        sleep 0.1
    done
    [ -n "$tail" ] || { wait $load || true; cat "$folder/load"; exit 1; }
    sleep 4
    perf record --quiet --freq 999 --output "$folder/data" --pid "$tail" -- sleep 4 > /dev/null 2> "$folder/perf" ||
        { echo "profile-tail: skipped; perf cannot sample here: $(tail -n 1 "$folder/perf")"; wait $load || true; exit 77; }
    wait $load || { cat "$folder/load"; exit 1; }
    perf report --input "$folder/data" --no-children --sort dso --field-separator , 2> /dev/null |
        awk -F, -v task="$task" '
            /^ *#/ || NF < 2 { next }
            $2 ~ /libonnxruntime/ { networks += $1; next }
            $2 ~ /kernel|vdso/ { kernel += $1; next }
            { own += $1 }
            END {
                printf "%s: networks %.1f %%, operating system %.1f %%, the server itself %.1f %% (%.1f %% of the networks)\n",
                    task, networks, kernel, own, 100 * own / networks
            }'
    grep '^throughput' "$folder/load"
done
