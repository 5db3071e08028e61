"""A second implementation of FORMAT.md, slow and plain; writes the golden files beside it.

    python3 reference.py        # rewrites golden/*
"""

import hashlib
import pathlib
import random
import struct
import zlib

LOW = 1 << 15  # the smallest state, and the state every lane starts and ends at


def write_tables(levels):
    """levels[l][c] = (low, frequencies with the escape last) -> tables.bin (FORMAT.md, section 2)."""
    out = b"NRWT" + struct.pack("<BBHB3x", 1, 12, len(levels[0]), len(levels))
    for level in levels:
        for low, freqs in level:
            assert sum(freqs) == 4096 and min(freqs) >= 1
            out += struct.pack("<hH", low, len(freqs) - 1) + struct.pack(f"<{len(freqs)}H", *freqs)
    return out


def lane_count(symbols):
    """The lanes an encoder uses for that many symbols (section 4.2)."""
    return next((lanes for lanes, below in ((1, 2048), (2, 8192), (4, 16384)) if symbols < below), 8)


def encode_static(tables, geometry, level, channels, lanes=None):
    """channels[c] = that channel's symbols in row, column order -> (layout, payload)."""
    lanes = lanes or lane_count(sum(map(len, channels)))
    states, words, escapes = [LOW] * lanes, [], []
    for (low, freqs), symbols in reversed(list(zip(tables[level], channels))):
        for i in reversed(range(len(symbols))):
            index = symbols[i] - low
            if not 0 <= index < len(freqs) - 1:
                index = len(freqs) - 1
                escapes.append(symbols[i])
            x, freq, start = states[i % lanes], freqs[index], sum(freqs[:index])
            if x >= freq << 19:
                words.append(x & 0xFFFF)
                x >>= 16
            states[i % lanes] = (x // freq << 12) + x % freq + start
    words.reverse()
    escapes.reverse()
    return lanes, (struct.pack(f"<{lanes}I", *states) + struct.pack(f"<{len(words)}H", *words)
                   + struct.pack(f"<{len(escapes)}h", *escapes))


def encode_raw(channels):
    """Symbols as they are, one byte each where all of them fit -> (layout, payload)."""
    flat = [s for channel in channels for s in channel]
    width = 1 if all(-128 <= s <= 127 for s in flat) else 2
    return width, struct.pack(f"<{len(flat)}{'bh'[width - 1]}", *flat)


def packet(blob, mode, geometry, level, channels, coded):
    """The header before (layout, payload) (section 3)."""
    layout, payload = coded
    flat = [s for channel in channels for s in channel]
    front = bytes([0x10 | mode, level, geometry, layout]) + hashlib.sha256(blob).digest()[:4]
    check = zlib.crc32(front + struct.pack(f"<{len(flat)}h", *flat))
    return front + struct.pack("<I", check) + payload


def laplace(scale, reach, rng):
    """A peaked table around 0 with every frequency at least 1, and a small escape."""
    weights = [2.718281828 ** (-abs(s) / scale) for s in range(-reach, reach + 1)]
    spare = 4096 - len(weights) - 1
    freqs = [1 + int(spare * w / sum(weights)) for w in weights] + [1]
    freqs[reach] += 4096 - sum(freqs)
    return -reach, freqs


def sample(table, count, rng, stray=0.0):
    """Symbols drawn from a table, some replaced by strays outside of it."""
    low, freqs = table
    drawn = rng.choices(range(low, low + len(freqs) - 1), freqs[:-1], k=count)
    return [rng.choice([-32768, 32767, low - 1, low + len(freqs) - 1]) if rng.random() < stray else s for s in drawn]


def main():
    folder = pathlib.Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    rng = random.Random(7)

    def put(name, levels, geometry, level, size, channels, lanes=None):
        blob = write_tables(levels)
        flat = [s for channel in channels for s in channel]
        (folder / f"{name}.tables").write_bytes(blob)
        (folder / f"{name}.shape").write_text(f"{len(channels)} {size[0]} {size[1]} {geometry} {level}\n")
        (folder / f"{name}.symbols").write_bytes(struct.pack(f"<{len(flat)}h", *flat))
        (folder / f"{name}.static").write_bytes(
            packet(blob, 1, geometry, level, channels, encode_static(levels, geometry, level, channels, lanes)))
        (folder / f"{name}.raw").write_bytes(packet(blob, 0, geometry, level, channels, encode_raw(channels)))

    tiny = [[(-1, [1024, 2048, 1000, 24]), (0, [4000, 96])]]
    put("example", tiny, 0, 0, (2, 2), [[0, 0, 1, -1], [0, 0, 5, 0]])
    put("one", tiny[:1], 3, 0, (1, 1), [[1], [0]])
    for name, size, count, stray in [("lanes1", (9, 13), 8, 0.02), ("lanes2", (17, 19), 8, 0.0),
                                     ("lanes4", (33, 31), 12, 0.002), ("lanes8", (60, 47), 12, 0.0)]:
        levels = [[laplace(0.2 + 6 * rng.random() / (l + 1), rng.choice([3, 12, 40, 150]), rng) for _ in range(count)]
                  for l in range(3)]
        put(name, levels, 1, 2, size, [sample(t, size[0] * size[1], rng, stray) for t in levels[2]])


if __name__ == "__main__":
    main()
