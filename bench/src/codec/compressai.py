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

FEW = 64

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
encoder, decoder = ans.RansEncoder(), ans.RansDecoder()
clock = time.perf_counter


def timed(call, *args):
    begin = clock()
    result = call(*args)
    return clock() - begin, result


packets = [encoder.encode_with_indexes(f, indexes, cdfs, sizes, offsets) for f in features]
right = all(decoder.decode_with_indexes(p, indexes, cdfs, sizes, offsets) == f for p, f in zip(packets, features))
print(json.dumps({"version": __version__, "bytes": sum(map(len, packets)) / len(packets), "right": right}), flush=True)
for _ in sys.stdin:
    encode = decode = empty = lists = back = 0.0
    for feature, packet in zip(features, packets):
        encode += timed(encoder.encode_with_indexes, feature, indexes, cdfs, sizes, offsets)[0]
        decode += timed(decoder.decode_with_indexes, packet, indexes, cdfs, sizes, offsets)[0]
        # What crossing into C++ costs: the tables, with a few symbols (on fewer than two words of output the coder writes
        # past its buffer), and one list of as many numbers as there are symbols.
        empty += timed(encoder.encode_with_indexes, feature[:FEW], indexes[:FEW], cdfs, sizes, offsets)[0]
        lists += timed(array.array, "i", indexes)[0]
        # And back: a list of as many numbers out of an array.
        back += timed(array.array("h", feature).tolist)[0]
    print(json.dumps({"encode": encode, "decode": decode, "tables": empty, "list": lists, "back": back}), flush=True)
