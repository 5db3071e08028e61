"""Golden packets: tables, symbols and packets of every mode, from a fixed seed."""

from __future__ import annotations

import pathlib
import random
import struct

from .channel import CONTEXT_MODES, INDEXED, RAW, STATIC, ZSTD, Plane
from .packet import MODES, decode, encode
from .tables import NEIGHBOURS, Table, Tables

# The ending of packets whose frame is the work of a compressor. Frames differ between versions of a compressor, so
# these files are kept and never written again.
KEPT = ".compressed"


def write_golden(folder: pathlib.Path) -> None:
    """Writes every golden file to `folder` and removes those of former runs.

    For each case NAME: NAME.tables, NAME.symbols (i16, little-endian, C, H, W), NAME.shape (channels, height, width,
    geometry, level, 1 where the encoder was to write a directory, lanes or 0 where they follow from the size), and
    NAME.MODE with the packet of each mode.
    """
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.suffix != KEPT:
            old.unlink()
    rng = random.Random(7)

    def put(name, blob, geometry, level, planes, modes, lanes=None, truncatable=False):
        shape = (len(planes), len(planes[0]), len(planes[0][0]))
        tables = Tables(blob)
        flat = [s for plane in planes for row in plane for s in row]
        (folder / f"{name}.tables").write_bytes(blob)
        (folder / f"{name}.shape").write_text(f"{shape[0]} {shape[1]} {shape[2]} {geometry} {level} {int(truncatable)} {lanes or 0}\n")
        (folder / f"{name}.symbols").write_bytes(struct.pack(f"<{len(flat)}h", *flat))
        for mode in modes:
            coded = encode(tables, shape, geometry, level, mode, planes, truncatable, lanes)
            if mode != ZSTD:  # which takes a package to decode
                groups = 1 if mode == RAW else (coded[2] >> 3) + 1
                assert decode(tables, shape, coded) == (dict(enumerate(planes)), groups)
            (folder / f"{name}.{MODES[mode]}").write_bytes(coded)

    def complete(levels, count, precision, groups, tile, shapes, reach=(3, 12, 40)):
        static = [[laplace(0.2 + 5 * rng.random(), rng.choice(reach), precision) for _ in range(count)] for _ in range(levels)]
        order = [c for members in groups for c in members] if groups else list(range(count))
        indexed = indexed_section(rng, count, levels, tile, 9, precision)
        return tables_file(static, precision, groups, indexed, context_section(rng, order, levels, shapes, precision))

    modes = [RAW, STATIC, INDEXED, *CONTEXT_MODES]
    tiny = tables_file([[Table(-1, [1024, 2048, 1000, 24], 12), Table(0, [4000, 96], 12)]])
    put("example", tiny, 0, 0, [[[0, 0], [1, -1]], [[0, 0], [5, 0]]], [STATIC, RAW, ZSTD])
    put("one", complete(1, 1, 12, None, 3, 2), 3, 0, [[[1]]], [*modes, ZSTD])
    put("lanes1", complete(2, 3, 12, None, 4, 8), 1, 1, picture(rng, (3, 7, 9), 0.02), [*modes, ZSTD])
    put("lanes2", complete(3, 5, 14, None, 0, 16), 1, 2, picture(rng, (5, 17, 15), 0.0), modes)
    put("lanes4", complete(2, 6, 12, [[2, 0], [5, 1, 4], [3]], 8, 16), 0, 1, picture(rng, (6, 33, 31), 0.002), modes, None, True)
    put("lanes8", complete(1, 8, 12, None, 8, 24), 2, 0, picture(rng, (8, 40, 32), 0.0), modes, 8)
    put("lanes16", complete(1, 6, 12, [[1, 4], [0, 3, 2, 5]], 8, 16), 0, 0, picture(rng, (6, 23, 38), 0.003), modes, 16, True)
    put("lanes32", complete(1, 4, 14, [[3], [1, 0, 2]], 5, 4), 15, 0, picture(rng, (4, 20, 27), 0.01), modes, 32, True)
    wide = [[Table(0, [3000] + [40] * 254 + [16384 - 3000 - 40 * 254 - 1, 1], 14)]]
    saturated = [[[rng.choice([0, 0, 0, 255, rng.randrange(256)]) for _ in range(24)] for _ in range(20)]]
    put("bytes", tables_file(wide, 14), 0, 0, saturated, [STATIC, RAW, ZSTD])
    put("sooner", complete(1, 4, 12, None, 8, 16), 0, 0, picture(rng, (4, 26, 24), 0.0), [STATIC, *CONTEXT_MODES])


def laplace(scale: float, reach: int, precision: int, shift: float = 0.0) -> Table:
    """A peaked table around `shift` with every frequency at least 1, and a small escape."""
    weights = [2.718281828 ** (-abs(s - shift) / scale) for s in range(-reach, reach + 1)]
    spare = (1 << precision) - len(weights) - 1
    freqs = [1 + int(spare * w / sum(weights)) for w in weights] + [1]
    freqs[reach] += (1 << precision) - sum(freqs)
    return Table(-reach, freqs, precision)


def tables_file(
    static: list[list[Table]],
    precision: int = 12,
    groups: list[list[int]] | None = None,
    indexed: bytes | None = None,
    context: bytes | None = None,
) -> bytes:
    """A tables file (section 2) from static[level][channel], the channels of each group and whole sections."""
    channels = len(static[0])
    sections = (groups is not None) | (indexed is not None) << 1 | (context is not None) << 2
    out = b"NRWT" + struct.pack("<BBHBBBB", 2, precision, channels, len(static), len(groups or [0]), sections, 0)
    if groups:
        out += b"".join(struct.pack("<H", len(members)) for members in groups)
        out += b"".join(struct.pack("<H", c) for members in groups for c in members)
    out += b"".join(table.bytes() for level in static for table in level)
    return out + (indexed or b"") + (context or b"")


def indexed_section(rng: random.Random, channels: int, levels: int, tile: int, count: int, precision: int) -> bytes:
    """A random section 2.3 with `count` tables."""
    out = bytes([tile, count])
    out += b"".join(laplace(0.1 + 0.4 * k, 2 + 4 * k, precision).bytes() for k in range(count))
    for _ in range(levels):
        out += bytes(rng.randrange(count) for _ in range(channels))
        freqs = [1 + rng.randrange(20) for _ in range(count)] + [1]
        freqs[0] += (1 << precision) - sum(freqs)
        out += Table(0, freqs, precision).bytes()
    return out


def context_section(rng: random.Random, order: list[int], levels: int, shapes: int, precision: int) -> bytes:
    """A random section 2.4 for channels coded in `order`."""
    channels = len(order)
    out = bytes([15, 8, shapes]) + b"".join(struct.pack("<H", 40 + 150 * i) for i in range(shapes - 1))
    for shape in range(shapes):
        for fraction in range(4):
            out += laplace(0.15 + 0.5 * shape, 2 + 3 * shape, precision, fraction / 4).bytes()

    def weights(count: int, top: int) -> list[int]:
        return [rng.randrange(-top // 4, top) for _ in range(count)]

    out += bytes([2])
    for _ in range(2):
        for channel in range(channels):
            earlier = order[: order.index(channel)]
            for own in NEIGHBOURS:
                taps = [(rng.choice(earlier), rng.randrange(9), rng.randrange(-300, 300)) for _ in range(3)] if earlier else []
                out += struct.pack(f"<{len(own)}h", *weights(len(own), 300)) + bytes([len(taps)])
                out += b"".join(struct.pack("<HBh", *tap) for tap in taps)
    out += bytes([1])
    for _ in range(channels):
        for own in NEIGHBOURS:
            out += struct.pack(f"<{len(own) + 2}h", *weights(len(own), 9000), *weights(2, 400))
    for level in range(levels):
        out += bytes([level % 2, 0, 0])
        out += b"".join(struct.pack("<hh", rng.randrange(-40, 48), rng.randrange(0, 900)) for _ in range(2 * channels))
    return out


def picture(rng: random.Random, shape: tuple[int, int, int], outliers: float) -> list[Plane]:
    """Symbols that look a little like a feature: smooth, in some places less so; `outliers` is the share of those that are far off."""
    planes = []
    for c in range(shape[0]):
        scale, plane, even = 0.3 + 4 * rng.random(), [], rng.randrange(-9, 10)
        for y in range(shape[1]):
            row = []
            for x in range(shape[2]):
                before = (row[-1] if x else 0) + (plane[-1][x] if y else 0)
                s = round(before * 0.3 + rng.gauss(0, scale * (0.2 + (x * y % 97) / 60)))
                if c % 3 == 1 and 2 * y < shape[1]:
                    s = even
                is_outlier = rng.random() < outliers
                row.append(rng.choice([-32768, 32767, 500, -500]) if is_outlier else max(-120, min(120, s)))
            plane.append(row)
        planes.append(plane)
    return planes
