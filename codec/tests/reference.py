"""A second implementation of FORMAT.md, slow and plain, made from the document alone.

    python3 reference.py decode tables.bin packet --shape C,H,W > symbols     # i16, little-endian, C, H, W
    python3 reference.py golden                                               # rewrites golden/*
"""

import argparse
import hashlib
import pathlib
import random
import struct
import sys
import zlib

RAW, STATIC, ZSTD, INDEXED, CONTEXT, COLUMNS, ROWS = range(7)
NAMES = ["raw", "static", "zstd", "indexed", "context", "columns", "rows"]
CONTEXTS = (CONTEXT, COLUMNS, ROWS)
LANES = [1, 2, 4, 8, 16, 32]
LOW = 1 << 15  # the smallest state
OWN = [[(-1, 0), (-1, -1), (-1, 1), (-2, 0)], [(0, -1), (0, 1), (-1, 0), (-1, -1), (-1, 1)]]


def i16(x):
    return (x + 0x8000) % 0x10000 - 0x8000


class Bytes:
    """A reader of little-endian fields."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values if len(values) > 1 else values[0]

    def list(self, count, kind):
        return list(struct.unpack_from(f"<{count}{kind}", self.data, self.skip(count * struct.calcsize(kind))))

    def skip(self, size):
        self.at += size
        return self.at - size

    def number(self):
        value = shift = 0
        while True:
            byte = self.take("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                assert shift <= 28 and (byte or shift == 7), "a number in its shortest form"
                return value


def number(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


class Table:
    """Section 2.1."""

    def __init__(self, low, freqs, precision):
        assert sum(freqs) == 1 << precision and min(freqs) >= 1 and len(freqs) >= 2
        self.low, self.freqs, self.count = low, freqs, len(freqs) - 1
        self.starts = [0]
        for freq in freqs:
            self.starts.append(self.starts[-1] + freq)
        self.slots = [i for i, freq in enumerate(freqs) for _ in range(freq)]

    @classmethod
    def read(cls, data, precision):
        low, count = data.take("h"), data.number()
        return cls(low, [data.number() for _ in range(count + 1)], precision)

    def bytes(self):
        return struct.pack("<h", self.low) + number(self.count) + b"".join(map(number, self.freqs))

    def entry(self, value):
        return value - self.low if 0 <= value - self.low < self.count else self.count

    def median(self):
        half = sum(self.freqs) // 2
        return next((self.low + i for i in range(self.count) if self.starts[i + 1] >= half), self.low + self.count - 1)


class Tables:
    """Section 2."""

    def __init__(self, blob):
        self.digest = hashlib.sha256(blob).digest()
        data = Bytes(blob)
        assert data.take("4s") == b"NRWT" and data.take("B") == 2
        self.precision, self.channels, self.levels, groups, sections, zero = data.take("BHBBBB")
        assert self.precision in (12, 14) and zero == 0 and sections < 8
        sizes, order = [self.channels], list(range(self.channels))
        if sections & 1:
            sizes, order = data.list(groups, "H"), data.list(self.channels, "H")
        assert sum(sizes) == self.channels and sorted(order) == list(range(self.channels)) and len(sizes) == groups
        self.order = order
        self.groups = [order[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(groups)]
        table = lambda: Table.read(data, self.precision)
        self.static = [[table() for _ in range(self.channels)] for _ in range(self.levels)]
        if sections & 2:
            self.tile, count = data.take("BB")
            self.indexed = [table() for _ in range(count)]
            self.bases, self.deltas = [], []
            for _ in range(self.levels):
                self.bases.append(data.list(self.channels, "B"))
                self.deltas.append(table())
        if sections & 4:
            self.cap, self.shift, shapes = data.take("BBB")
            self.thresholds = data.list(shapes - 1, "H")
            self.family = [table() for _ in range(4 * shapes)]
            both = lambda read: [[read(phase) for phase in (0, 1)] for _ in range(self.channels)]

            def mean(phase):
                own = data.list(len(OWN[phase]), "h")
                return own, [data.take("HBh") for _ in range(data.take("B"))]

            self.means = [both(mean) for _ in range(data.take("B"))]
            activity = lambda phase: (data.list(len(OWN[phase]), "h"), data.take("h"), data.take("h"))
            self.activities = [both(activity) for _ in range(data.take("B"))]
            self.biases = []
            for _ in range(self.levels):
                sets = data.take("BBB")
                self.biases.append((sets, both(lambda _: data.take("hh"))))
        assert data.at == len(blob)


class Lanes:
    """The states (section 4.2 and 4.3). Decoding takes words from the front; encoding runs backwards."""

    def __init__(self, states, words, precision):
        self.states, self.words, self.precision, self.at = states, words, precision, 0

    def get(self, lane, table):
        x, bits = self.states[lane], self.precision
        slot = x % (1 << bits)
        entry = table.slots[slot]
        x = table.freqs[entry] * (x >> bits) + slot - table.starts[entry]
        if x < LOW:
            x = x << 16 | self.words[self.at]
            self.at += 1
        self.states[lane] = x
        return entry

    def put(self, lane, table, entry):
        x, freq = self.states[lane], table.freqs[entry]
        if x >= freq << (31 - self.precision):
            self.words.append(x & 0xFFFF)
            x >>= 16
        self.states[lane] = (x // freq << self.precision) + x % freq + table.starts[entry]


class Codec:
    """Runs of values with their tables, for one packet in one direction (section 5)."""

    def __init__(self, tables, shape, level, mode):
        self.tables, self.level, self.mode = tables, level, mode
        self.shape = shape = (shape[0], shape[2], shape[1]) if mode == ROWS else shape
        self.bytes_table = Table(0, [1 << (tables.precision - 8)] * 256, tables.precision)
        self.planes = {}
        self.far = [[0] * shape[2] for _ in range(shape[1])]
        self.cost = 0

    def channel(self, channel, run):
        """Codes a channel: run(tables, values or None) -> values, once per run. Returns the plane."""
        tables, (_, height, width) = self.tables, self.shape
        known = self.planes.get(channel)
        if self.mode in CONTEXTS:
            return self.context(channel, run, known)
        if self.mode == STATIC:
            chosen = [tables.static[self.level][channel]] * (height * width)
        else:
            chosen = self.indexed(channel, run, known)
        flat = run(chosen, known and [s for row in known for s in row])
        self.planes[channel] = [flat[y * width : (y + 1) * width] for y in range(height)]

    def indexed(self, channel, run, known):
        tables, (_, height, width) = self.tables, self.shape
        tall, wide = min(tables.tile or height, height), min(tables.tile or width, width)
        rows, columns, count = -(-height // tall), -(-width // wide), len(tables.indexed)
        deltas = tables.deltas[self.level]

        def predicted(indices):
            tile = len(indices)
            if tile == 0:
                return tables.bases[self.level][channel]
            return indices[-1] if tile % columns else indices[tile - columns]

        values = None
        if known:
            indices, values = [], []
            for tile in range(rows * columns):
                y, x = tile // columns * tall, tile % columns * wide
                inside = [s for row in known[y : y + tall] for s in row[x : x + wide]]
                total = lambda t: sum(cost(t, t.entry(s), tables.precision) for s in inside)
                delta = lambda k: (k - predicted(indices)) % count
                price = lambda k: total(tables.indexed[k]) + cost(deltas, delta(k), tables.precision)
                best = min(range(count), key=lambda k: (price(k), k))
                values.append(delta(best))
                indices.append(best)
        values = run([deltas] * (rows * columns), values, sampled=False)
        indices = []
        for value in values:
            assert 0 <= value < count
            indices.append((predicted(indices) + value) % count)
        return [tables.indexed[indices[y // tall * columns + x // wide]] for y in range(height) for x in range(width)]

    def context(self, channel, run, known):
        t, (_, height, width) = self.tables, self.shape
        (mean_set, activity_set, coarse), biases = t.biases[self.level]
        at = lambda plane, y, x: plane[y][x] if 0 <= y < height and 0 <= x < width else 0
        plane = [[0] * width for _ in range(height)]
        magnitudes = [[0] * width for _ in range(height)]
        far = self.far
        smooth = [[2 * at(far, y, x) + at(far, y, x - 1) + at(far, y, x + 1) for x in range(width)] for y in range(height)]
        blurred = [
            [(2 * smooth[y][x] + at(smooth, y - 1, x) + at(smooth, y + 1, x)) >> 4 for x in range(width)]
            for y in range(height)
        ]
        for y in range(height):
            for phase in (0, 1):
                own, taps = t.means[mean_set][channel][phase]
                strengths, far_weight, wide_weight = t.activities[activity_set][channel][phase]
                mean_bias, activity_bias = biases[channel][phase]
                columns = range(phase, width, 2)
                chosen, means = [], []
                for x in columns:
                    around = [(y + dy, x + dx) for dy, dx in OWN[phase]]
                    mq = 16 * mean_bias + sum(w * at(plane, *place) for w, place in zip(own, around))
                    for source, place, weight in taps:
                        mq += weight * at(self.planes[source], y + place // 3 - 1, x + place % 3 - 1)
                    mq >>= 8
                    near = {at(plane, *place) for place in around}
                    if len(near) == 1 or self.mode != CONTEXT:
                        mq = 4 * at(plane, y - 1, x)
                    e = (activity_bias << (t.shift - 4)) + far_weight * far[y][x] + wide_weight * blurred[y][x]
                    e += sum(w * at(magnitudes, *place) for w, place in zip(strengths, around))
                    e = max(0, e >> t.shift)
                    shape = sum(threshold <= e for threshold in t.thresholds)
                    chosen.append(t.family[4 * shape + mq % 4])
                    means.append(mq)
                values = known and [i16(known[y][x] - (mq >> 2)) for x, mq in zip(columns, means)]
                values = run(chosen, values) if chosen else []
                for x, mq, value in zip(columns, means, values):
                    plane[y][x] = i16(value + (mq >> 2))
                    magnitudes[y][x] = min(abs(4 * plane[y][x] - mq) >> coarse, t.cap)
        self.planes[channel] = plane
        self.far = [[a - (a >> 2) + 8 * m for a, m in zip(*rows)] for rows in zip(far, magnitudes)]


def turned(plane):
    return [list(row) for row in zip(*plane)]


def crc(tables, head, planes, channels):
    flat = [s for c in channels for row in planes[c] for s in row]
    return zlib.crc32(tables.digest + head + struct.pack(f"<{len(flat)}h", *flat))


def shares(seal, lanes):
    return [seal >> 15 * lane & 0x7FFF if lane < 3 else 0 for lane in range(lanes)]


def decode(tables, shape, packet):
    """-> (planes by channel, groups present)."""
    head, data = packet[:4], Bytes(packet[4:])
    assert head[0] >> 4 == 2 and head[3] == tables.digest[0]
    mode, level, layout = head[0] & 15, head[1] & 15, head[2]
    channels, height, width = shape
    if mode in (RAW, ZSTD):
        seal, body = data.take("I"), packet[8:]
        if mode == ZSTD:
            import zstandard

            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=layout * channels * height * width)
        flat = struct.unpack(f"<{channels * height * width}{'bh'[layout - 1]}", body)
        rows = [list(flat[i : i + width]) for i in range(0, len(flat), width)]
        planes = {c: rows[c * height : (c + 1) * height] for c in range(channels)}
        assert crc(tables, head, planes, tables.order) == seal
        return planes, 1
    lanes, groups = LANES[layout & 7], (layout >> 3) + 1
    assert groups in (1, len(tables.groups))
    directory = [(data.number(), data.take("H")) for _ in range(groups - 1)]
    bits, held = "", data.at
    states = []
    text = "".join(f"{byte:08b}"[::-1] for byte in data.data[data.at :])
    at = 0
    for _ in range(lanes):
        top = int(text[at : at + 4][::-1], 2) + 15
        states.append(1 << top | int(text[at + 4 : at + 4 + top][::-1], 2))
        at += 4 + top
    assert "1" not in text[at : -(-at // 8) * 8]
    data.at += -(-at // 8)
    count = (len(data.data) - data.at) // 2
    words = data.list(count, "H")
    assert data.at == len(data.data)
    ends = [sum(w for w, _ in directory[: i + 1]) for i in range(groups - 1)]
    present = max((i + 1 for i, end in enumerate(ends) if end == count), default=groups)
    assert present < groups or not ends or count > ends[-1]
    codec, coder = Codec(tables, shape, level, mode), Lanes(states, words, tables.precision)
    laid = lambda: {c: turned(plane) if mode == ROWS else plane for c, plane in codec.planes.items()}

    def run(chosen, _, sampled=True):
        entries = [coder.get(i % lanes, table) for i, table in enumerate(chosen)]
        values, byte = [], 0
        for table, entry in zip(chosen, entries):
            value = table.low + entry
            if entry == table.count:
                pair = bytes(coder.get((byte + i) % lanes, codec.bytes_table) for i in (0, 1))
                byte += 2
                value = struct.unpack("<h", pair)[0]
                assert table.entry(value) == table.count
            values.append(value)
        return values

    done = []
    for group, members in enumerate(tables.groups if groups == 1 else tables.groups[:present]):
        for channel in members:
            codec.channel(channel, run)
            done.append(channel)
        if group < groups - 1:
            assert coder.at == ends[group] and crc(tables, head, laid(), done) & 0xFFFF == directory[group][1]
    if present == groups:
        assert coder.at == count
        seal = crc(tables, head, laid(), done)
        assert [state - LOW for state in coder.states] == shares(seal, lanes)
    planes = laid()
    for channel in set(tables.order) - set(done):
        median = tables.static[level][channel].median()
        planes[channel] = [[median] * width for _ in range(height)]
    return planes, present


def log(f):
    top = f.bit_length() - 1
    x, result = f << (31 - top), top
    for _ in range(8):
        x = x * x >> 31
        result *= 2
        if x >= 1 << 32:
            x, result = x >> 1, result + 1
    return result


def cost(table, entry, precision):
    return 256 * precision - log(table.freqs[entry]) + (4096 if entry == table.count else 0)


def encode(tables, shape, geometry, level, mode, planes, layered=False, lanes=None):
    """planes[c][y][x] -> packet (section 4.3). The number of lanes follows from the size unless it is given."""
    first = geometry << 4 | level
    head = lambda layout: bytes([0x20 | mode, first, layout, tables.digest[0]])
    if mode == RAW:
        flat = [s for plane in planes for row in plane for s in row]
        width = 1 if all(-128 <= s <= 127 for s in flat) else 2
        seal = crc(tables, head(width), planes, tables.order)
        return head(width) + struct.pack("<I", seal) + struct.pack(f"<{len(flat)}{'bh'[width - 1]}", *flat)
    codec = Codec(tables, shape, level, mode)
    codec.planes = {c: turned(plane) if mode == ROWS else [list(row) for row in plane] for c, plane in enumerate(planes)}
    runs = {}

    for channel in tables.order:

        def run(chosen, values, sampled=True):
            runs.setdefault(channel, []).append((chosen, values))
            for table, value in list(zip(chosen, values))[::8] if sampled else ():
                codec.cost += cost(table, table.entry(value), tables.precision)
            return values

        codec.channel(channel, run)
    estimate = codec.cost // 256
    code = sum(estimate >= size for size in ((256, 896, 1920, 4608) if mode in CONTEXTS else (256, 1792, 3840, 24576, 24576)))
    if lanes:
        code = LANES.index(lanes)
    groups = len(tables.groups) if layered else 1
    lanes = LANES[code]
    layout = (groups - 1) << 3 | code
    seal = crc(tables, head(layout), planes, tables.order)
    coder = Lanes([LOW + share for share in shares(seal, lanes)], [], tables.precision)
    counts = []
    for members in reversed(tables.groups):
        before = len(coder.words)
        for channel in reversed(members):
            for chosen, values in reversed(runs[channel]):
                entries = [table.entry(value) for table, value in zip(chosen, values)]
                escaped = [v for t, e, v in zip(chosen, entries, values) if e == t.count]
                for i, byte in reversed(list(enumerate(struct.pack(f"<{len(escaped)}h", *escaped)))):
                    coder.put(i % lanes, codec.bytes_table, byte)
                for i in reversed(range(len(entries))):
                    coder.put(i % lanes, chosen[i], entries[i])
        counts.insert(0, len(coder.words) - before)
    if layered and groups > 1 and counts[-1] == 0:
        return encode(tables, shape, geometry, level, mode, planes, False, lanes)
    out = head(layout)
    for group in range(groups - 1):
        done = [c for members in tables.groups[: group + 1] for c in members]
        out += number(counts[group]) + struct.pack("<H", crc(tables, head(layout), planes, done) & 0xFFFF)
    text = ""
    for state in coder.states:
        top = state.bit_length() - 1
        text += f"{top - 15:04b}"[::-1] + f"{state - (1 << top):0{top}b}"[::-1]
    text += "0" * (-len(text) % 8)
    out += bytes(int(text[i : i + 8][::-1], 2) for i in range(0, len(text), 8))
    return out + struct.pack(f"<{len(coder.words)}H", *reversed(coder.words))


def laplace(scale, reach, precision, shift=0.0):
    """A peaked table around `shift` with every frequency at least 1, and a small escape."""
    weights = [2.718281828 ** (-abs(s - shift) / scale) for s in range(-reach, reach + 1)]
    spare = (1 << precision) - len(weights) - 1
    freqs = [1 + int(spare * w / sum(weights)) for w in weights] + [1]
    freqs[reach] += (1 << precision) - sum(freqs)
    return Table(-reach, freqs, precision)


def make_tables(static, precision=12, groups=None, indexed=None, context=None):
    """A tables file from its parts; static[level][channel] is a Table."""
    channels = len(static[0])
    sections = (groups is not None) | (indexed is not None) << 1 | (context is not None) << 2
    out = b"NRWT" + struct.pack("<BBHBBBB", 2, precision, channels, len(static), len(groups or [0]), sections, 0)
    if groups:
        out += b"".join(struct.pack("<H", len(members)) for members in groups)
        out += b"".join(struct.pack("<H", c) for members in groups for c in members)
    out += b"".join(table.bytes() for level in static for table in level)
    return out + (indexed or b"") + (context or b"")


def make_indexed(rng, channels, levels, tile, count, precision):
    out = bytes([tile, count])
    out += b"".join(laplace(0.1 + 0.4 * k, 2 + 4 * k, precision).bytes() for k in range(count))
    for _ in range(levels):
        out += bytes(rng.randrange(count) for _ in range(channels))
        freqs = [1 + rng.randrange(20) for _ in range(count)] + [1]
        freqs[0] += (1 << precision) - sum(freqs)
        out += Table(0, freqs, precision).bytes()
    return out


def make_context(rng, order, levels, shapes, precision, coarse=0):
    channels = len(order)
    out = bytes([15, 8, shapes]) + b"".join(struct.pack("<H", 40 + 150 * i) for i in range(shapes - 1))
    for shape in range(shapes):
        for fraction in range(4):
            out += laplace(0.15 + 0.5 * shape, 2 + 3 * shape, precision, fraction / 4).bytes()
    small = lambda count, top: [rng.randrange(-top // 4, top) for _ in range(count)]
    out += bytes([2])
    for _ in range(2):
        for channel in range(channels):
            earlier = order[: order.index(channel)]
            for own in OWN:
                taps = [(rng.choice(earlier), rng.randrange(9), rng.randrange(-300, 300)) for _ in range(3)] if earlier else []
                out += struct.pack(f"<{len(own)}h", *small(len(own), 300)) + bytes([len(taps)])
                out += b"".join(struct.pack("<HBh", *tap) for tap in taps)
    out += bytes([1])
    for _ in range(channels):
        for own in OWN:
            out += struct.pack(f"<{len(own) + 2}h", *small(len(own), 9000), *small(2, 400))
    for level in range(levels):
        out += bytes([level % 2, 0, coarse])
        out += b"".join(struct.pack("<hh", rng.randrange(-40, 48), rng.randrange(0, 900)) for _ in range(2 * channels))
    return out


def picture(rng, shape, stray, low=-32768, high=32767):
    """Symbols that look a little like a feature: smooth, with more going on in some places; now and then a stray."""
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
                row.append(rng.choice([low, high, 500, -500]) if rng.random() < stray else max(-120, min(120, s)))
            plane.append(row)
        planes.append(plane)
    return planes


def golden():
    folder = pathlib.Path(__file__).parent / "golden"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if old.suffix != ".zstd":
            old.unlink()
    rng = random.Random(7)

    def put(name, blob, geometry, level, planes, modes, lanes=None, layered=False):
        shape = (len(planes), len(planes[0]), len(planes[0][0]))
        tables = Tables(blob)
        flat = [s for plane in planes for row in plane for s in row]
        (folder / f"{name}.tables").write_bytes(blob)
        (folder / f"{name}.shape").write_text(f"{shape[0]} {shape[1]} {shape[2]} {geometry} {level} {int(layered)} {lanes or 0}\n")
        (folder / f"{name}.symbols").write_bytes(struct.pack(f"<{len(flat)}h", *flat))
        for mode in modes:
            coded = encode(tables, shape, geometry, level, mode, planes, layered, lanes)
            assert decode(tables, shape, coded) == (dict(enumerate(planes)), (coded[2] >> 3) + 1 if mode else 1)
            (folder / f"{name}.{NAMES[mode]}").write_bytes(coded)

    def complete(levels, count, precision, groups, tile, shapes, reach=(3, 12, 40)):
        static = [[laplace(0.2 + 5 * rng.random(), rng.choice(reach), precision) for _ in range(count)] for _ in range(levels)]
        order = [c for members in groups for c in members] if groups else list(range(count))
        return make_tables(
            static, precision, groups,
            make_indexed(rng, count, levels, tile, 9, precision), make_context(rng, order, levels, shapes, precision))

    all_modes = [RAW, STATIC, INDEXED, *CONTEXTS]
    tiny = make_tables([[Table(-1, [1024, 2048, 1000, 24], 12), Table(0, [4000, 96], 12)]])
    put("example", tiny, 0, 0, [[[0, 0], [1, -1]], [[0, 0], [5, 0]]], [STATIC, RAW])
    put("one", complete(1, 1, 12, None, 3, 2), 3, 0, [[[1]]], all_modes)
    put("lanes1", complete(2, 3, 12, None, 4, 8), 1, 1, picture(rng, (3, 7, 9), 0.02), all_modes)
    put("lanes2", complete(3, 5, 14, None, 0, 16), 1, 2, picture(rng, (5, 17, 15), 0.0), all_modes)
    put("lanes4", complete(2, 6, 12, [[2, 0], [5, 1, 4], [3]], 8, 16), 0, 1, picture(rng, (6, 33, 31), 0.002), all_modes, None, True)
    put("lanes8", complete(1, 8, 12, None, 8, 24), 2, 0, picture(rng, (8, 40, 32), 0.0), all_modes, 8)
    put("lanes16", complete(1, 6, 12, [[1, 4], [0, 3, 2, 5]], 8, 16), 0, 0, picture(rng, (6, 23, 38), 0.003), all_modes, 16, True)
    put("lanes32", complete(1, 4, 14, [[3], [1, 0, 2]], 5, 4), 15, 0, picture(rng, (4, 20, 27), 0.01), all_modes, 32, True)
    wide = [[Table(0, [3000] + [40] * 254 + [16384 - 3000 - 40 * 254 - 1, 1], 14)]]
    saturated = [[[rng.choice([0, 0, 0, 255, rng.randrange(256)]) for _ in range(24)] for _ in range(20)]]
    put("bytes", make_tables(wide, 14), 0, 0, saturated, [STATIC, RAW])
    put("sooner", complete(1, 4, 12, None, 8, 16), 0, 0, picture(rng, (4, 26, 24), 0.0), [STATIC, *CONTEXTS])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("golden", help="rewrite the golden files")
    reader = commands.add_parser("decode", help="decode a packet")
    reader.add_argument("tables", type=pathlib.Path)
    reader.add_argument("packet", type=pathlib.Path)
    reader.add_argument("--shape", required=True, help="channels,height,width")
    options = parser.parse_args()
    if options.command == "golden":
        return golden()
    shape = tuple(int(side) for side in options.shape.split(","))
    planes, present = decode(Tables(options.tables.read_bytes()), shape, options.packet.read_bytes())
    flat = [s for c in range(shape[0]) for row in planes[c] for s in row]
    sys.stdout.buffer.write(struct.pack(f"<{len(flat)}h", *flat))
    print(f"{present} groups", file=sys.stderr)


if __name__ == "__main__":
    main()
