"""Times CompressAI's C++ coder on features that narrows-bench hands over; one line of JSON per turn.

Arguments: a folder with `job.json` (channels, plane, features, lows, frequencies with the escape last, summing to
`total`) and `symbols.bin` (i16, little-endian). A line on standard input asks for a turn, its end for the end.
"""

import array
import json
import sys
import time
from pathlib import Path

from compressai import __version__, ans

folder = Path(sys.argv[1])
job = json.loads((folder / "job.json").read_text())
symbols = array.array("h", (folder / "symbols.bin").read_bytes())
size = job["channels"] * job["plane"]
features = [symbols[i : i + size].tolist() for i in range(0, len(symbols), size)]
indexes = [channel for channel in range(job["channels"]) for _ in range(job["plane"])]
scale = 65536 // job["total"]
cdfs, sizes, offsets = [], [], job["lows"]
for frequencies in job["frequencies"]:
    at, cdf = 0, [0]
    for frequency in frequencies:
        at += frequency * scale
        cdf.append(at)
    cdfs.append(cdf)
    sizes.append(len(cdf))
# As many symbols, of tables of the same lengths, but all nearly certain: what is left of a call is its overhead.
certain = [low for low in job["lows"] for _ in range(job["plane"])]
flat = [[0, *range(65538 - size, 65537)] for size in sizes]
encoder, decoder = ans.RansEncoder(), ans.RansDecoder()
clock = time.perf_counter


def timed(call, *args):
    begin = clock()
    result = call(*args)
    return clock() - begin, result


packets = [encoder.encode_with_indexes(f, indexes, cdfs, sizes, offsets) for f in features]
short = encoder.encode_with_indexes(certain, indexes, flat, sizes, offsets)
right = all(decoder.decode_with_indexes(p, indexes, cdfs, sizes, offsets) == f for p, f in zip(packets, features))
print(json.dumps({"version": __version__, "bytes": sum(map(len, packets)) / len(packets), "right": right}), flush=True)
for _ in sys.stdin:
    encode = decode = encode_overhead = decode_overhead = 0.0
    for feature, packet in zip(features, packets):
        encode += timed(encoder.encode_with_indexes, feature, indexes, cdfs, sizes, offsets)[0]
        decode += timed(decoder.decode_with_indexes, packet, indexes, cdfs, sizes, offsets)[0]
        encode_overhead += timed(encoder.encode_with_indexes, certain, indexes, flat, sizes, offsets)[0]
        decode_overhead += timed(decoder.decode_with_indexes, short, indexes, flat, sizes, offsets)[0]
    turn = {"encode": encode, "decode": decode, "encode_overhead": encode_overhead, "decode_overhead": decode_overhead}
    print(json.dumps(turn), flush=True)
