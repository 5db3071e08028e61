"""Times CompressAI's C++ coder on features that narrows-bench writes to files; prints one line of JSON per run.

Arguments: a folder with `job.json` (channels, plane, features, lows, frequencies with the escape last, summing to
`total`) and `symbols.bin` (i16, little-endian). Each line on standard input starts a run; the end of the input ends the program.
"""

import array
import json
import sys
import time
from pathlib import Path

from compressai import __version__, ans


class Quiet(list):
    """A list whose repr is short, so that building an error message costs nothing."""

    def __repr__(self):
        return "..."


folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
symbols = array.array("h", (folder / "symbols.bin").read_bytes())
size = job["channels"] * job["plane"]
arrays = [symbols[i : i + size] for i in range(0, len(symbols), size)]
features = [Quiet(symbols.tolist()) for symbols in arrays]
indexes = Quiet(channel for channel in range(job["channels"]) for _ in range(job["plane"]))
scale = 65536 // job["total"]
cdfs, sizes, offsets = Quiet(), Quiet(), job["lows"]
for frequencies in job["frequencies"]:
    at, cdf = 0, [0]
    for frequency in frequencies:
        at += frequency * scale
        cdf.append(at)
    cdfs.append(cdf)
    sizes.append(len(cdf))
encoder, decoder = ans.RansEncoder(), ans.RansDecoder()
clock = time.perf_counter


def timed(call, *args):
    begin = clock()
    call(*args)
    return clock() - begin


def refused(call, *args):
    """The same call with an invalid last argument: refused after all others are converted and before any coding."""
    begin = clock()
    try:
        call(*args, [None])
    except TypeError:
        return clock() - begin
    raise SystemExit("CompressAI accepts offsets of None")


packets = [encoder.encode_with_indexes(f, indexes, cdfs, sizes, offsets) for f in features]
lossless = all(decoder.decode_with_indexes(p, indexes, cdfs, sizes, offsets) == f for p, f in zip(packets, features))
print(json.dumps({"version": __version__, "bytes": sum(map(len, packets)) / len(packets), "lossless": lossless}), flush=True)
for _ in sys.stdin:
    encode = decode = encode_overhead = decode_overhead = 0.0
    for feature, numbers, packet in zip(features, arrays, packets):
        encode += timed(encoder.encode_with_indexes, feature, indexes, cdfs, sizes, offsets)
        decode += timed(decoder.decode_with_indexes, packet, indexes, cdfs, sizes, offsets)
        encode_overhead += refused(encoder.encode_with_indexes, feature, indexes, cdfs, sizes)
        # Decoding also makes a list of numbers.
        decode_overhead += refused(decoder.decode_with_indexes, packet, indexes, cdfs, sizes) + timed(numbers.tolist)
    run = {"encode": encode, "decode": decode, "encode_overhead": encode_overhead, "decode_overhead": decode_overhead}
    print(json.dumps(run), flush=True)
