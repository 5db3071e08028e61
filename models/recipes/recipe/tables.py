"""Integer probability tables of the entropy coder, and the file that holds them (codec/FORMAT.md, section 2).

Counts of training symbols, smoothed by a prior, are quantised to integer frequencies with the sum 2^12, or 2^14 where the
symbols are widely distributed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

PRECISIONS = (12, 14)
WIDE = 128  # regular values from which on a table has 14 bits
REGULAR_LIMIT = 1024  # most regular values of a table
SMOOTHING = 64.0  # symbols of the prior that are added to the counts
MIN_PROBABILITY = 0.5 / 4096  # rarer values at the ends of a table are coded with the escape


@dataclass(frozen=True)
class Table:
    """Frequencies of the regular values low, low + 1, … and of the escape."""

    low: int
    freq: np.ndarray  # i64 [count + 1]; the last one is the escape's

    @property
    def count(self) -> int:
        """Number of regular values."""
        return len(self.freq) - 1

    @property
    def median(self) -> int:
        """The median, which replaces symbols that a packet does not hold."""
        reached = np.flatnonzero(2 * np.cumsum(self.freq[:-1]) >= self.freq.sum())
        return self.low + (int(reached[0]) if len(reached) else self.count - 1)

    def cost(self, low: int, size: int) -> np.ndarray:
        """Code length f64 [size] in bits of the values low, low + 1, …; an escaped value takes 16 bits more."""
        bits = -np.log2(self.freq / self.freq.sum())
        found = np.full(size, bits[-1] + 16)
        first = max(self.low, low)
        last = min(self.low + self.count, low + size)
        if first < last:
            found[first - low : last - low] = bits[first - self.low : last - self.low]
        return found

    def bits(self, counts: np.ndarray) -> float:
        """Code length in bits of a histogram [256] of the symbols -128..127."""
        return float(counts @ self.cost(-128, len(counts)))


def table(counts: np.ndarray, prior: np.ndarray, low: int = -128, precision: int = 12) -> Table:
    """The table of a histogram and a prior of the values low, low + 1, …"""
    smoothed = counts + SMOOTHING * prior / max(prior.sum(), 1e-12)
    share = smoothed / max(smoothed.sum(), 1e-12)
    common = np.flatnonzero(share >= MIN_PROBABILITY)
    first, last = (int(common[0]), int(common[-1])) if len(common) else (-low, -low)
    last = min(last, first + REGULAR_LIMIT - 1)
    inside = share[first : last + 1]
    return Table(first + low, quantise(np.append(inside, max(1 - inside.sum(), 0.0)), 1 << precision))


def quantise(share: np.ndarray, total: int = 4096) -> np.ndarray:
    """Integer frequencies of at least 1 with the sum `total` for the probabilities `share`.

    After rounding, single counts are added where the expected code length decreases most, or removed where it increases
    least. Raises ValueError if there are more values than counts.
    """
    if len(share) > total:
        raise ValueError(f"{len(share)} values do not fit {total} counts")
    share = np.asarray(share, np.float64) / share.sum()
    freq = np.maximum(np.rint(share * total).astype(np.int64), 1)
    while (extra := int(freq.sum()) - total) != 0:
        if extra > 0:
            loss = np.where(freq > 1, share * np.log(freq / np.maximum(freq - 1, 1)), np.inf)
            freq[int(np.argmin(loss))] -= 1
        else:
            freq[int(np.argmax(share * np.log((freq + 1) / freq)))] += 1
    return freq


@dataclass(frozen=True)
class Tap:
    """A weight on the symbol of an earlier channel at an offset."""

    plane: int
    dy: int
    dx: int
    weight: int


@dataclass(frozen=True)
class Level:
    """The sets that a rate level uses, and its biases i16 [channels][2][mean, activity]."""

    mean: int
    activity: int
    coarse: int
    biases: np.ndarray


@dataclass(frozen=True)
class Context:
    """The context model (section 2.4); weights are listed by channel and phase."""

    cap: int
    shift: int
    thresholds: list[int]
    shapes: list[list[Table]]  # [shapes][4]
    means: list[list[list[tuple[list[int], list[Tap]]]]]  # [sets][channels][2]: weights of neighbours, taps
    activities: list[list[list[list[int]]]]  # [sets][channels][2]: weights of neighbours, far, wide
    levels: list[Level]


@dataclass(frozen=True)
class Indexed:
    """The section of mode indexed (section 2.3)."""

    tile: int
    tables: list[Table]
    bases: list[list[int]]  # [levels][channels]
    deltas: list[Table]  # [levels]


@dataclass(frozen=True)
class Tables:
    """The content of tables.bin."""

    static: list[list[Table]]  # [levels][channels]
    precision: int = 12
    order: list[int] = field(default_factory=list)  # channels in the order of coding; empty: from 0 up
    groups: list[int] = field(default_factory=list)  # channels in each group; empty: one group
    indexed: Indexed | None = None
    context: Context | None = None

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return len(self.static[0])

    def pack(self) -> bytes:
        """The bytes of the file."""
        sections = bool(self.order) | bool(self.indexed) << 1 | bool(self.context) << 2
        head = (b"NRWT", 2, self.precision, self.channels, len(self.static), max(len(self.groups), 1), sections, 0)
        out = [struct.pack("<4sBBHBBBB", *head)]
        if self.order:
            out.append(struct.pack(f"<{len(self.groups)}H", *self.groups))
            out.append(struct.pack(f"<{len(self.order)}H", *self.order))
        out += [pack_table(t) for level in self.static for t in level]
        if self.indexed:
            out.append(struct.pack("<BB", self.indexed.tile, len(self.indexed.tables)))
            out += [pack_table(t) for t in self.indexed.tables]
            for bases, deltas in zip(self.indexed.bases, self.indexed.deltas, strict=True):
                out += [bytes(bases), pack_table(deltas)]
        if self.context:
            out.append(pack_context(self.context))
        return b"".join(out)


def number(value: int) -> bytes:
    """An unsigned integer as LEB128."""
    out = []
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def pack_table(t: Table) -> bytes:
    """The bytes of a table (section 2.1)."""
    return struct.pack("<h", t.low) + number(t.count) + b"".join(number(int(f)) for f in t.freq)


def pack_context(c: Context) -> bytes:
    """The bytes of a context model (section 2.4)."""
    out = [struct.pack("<BBB", c.cap, c.shift, len(c.shapes)), struct.pack(f"<{len(c.thresholds)}H", *c.thresholds)]
    out += [pack_table(t) for shape in c.shapes for t in shape]
    out.append(bytes([len(c.means)]))
    for weights, taps in (phase for part in c.means for channel in part for phase in channel):
        out += [struct.pack(f"<{len(weights)}h", *weights), bytes([len(taps)])]
        out += [struct.pack("<HBh", t.plane, 3 * (t.dy + 1) + t.dx + 1, t.weight) for t in taps]
    out.append(bytes([len(c.activities)]))
    out += [struct.pack(f"<{len(w)}h", *w) for part in c.activities for channel in part for w in channel]
    for level in c.levels:
        out += [bytes([level.mean, level.activity, level.coarse]), level.biases.astype("<i2").tobytes()]
    return b"".join(out)


class Reader:
    """Sequential reader of tables.bin."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple:
        """Values in the format of the module struct, little-endian."""
        found = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return found

    def number(self) -> int:
        """An unsigned integer in LEB128."""
        value, shift = 0, 0
        while True:
            (byte,) = self.take("B")
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def table(self, total: int) -> Table:
        """A table whose frequencies sum to `total`; raises ValueError if they do not."""
        at = self.at
        (low,) = self.take("h")
        freq = np.array([self.number() for _ in range(self.number() + 1)], np.int64)
        if freq.min() < 1 or freq.sum() != total:
            raise ValueError(f"tables.bin: the table at byte {at} does not sum to {total}")
        return Table(low, freq)

    def indexed(self, total: int, channels: int, levels: int) -> Indexed:
        """The section of mode indexed."""
        tile, count = self.take("BB")
        found = [self.table(total) for _ in range(count)]
        rows = [(list(self.take(f"{channels}B")), self.table(total)) for _ in range(levels)]
        return Indexed(tile, found, [bases for bases, _ in rows], [deltas for _, deltas in rows])

    def context(self, total: int, channels: int, levels: int) -> Context:
        """The context model."""
        cap, shift, count = self.take("BBB")
        thresholds = list(self.take(f"{count - 1}H"))
        shapes = [[self.table(total) for _ in range(4)] for _ in range(count)]
        means = [[[self.mean(n) for n in (4, 5)] for _ in range(channels)] for _ in range(*self.take("B"))]
        activities = [[[list(self.take(f"{n + 2}h")) for n in (4, 5)] for _ in range(channels)] for _ in range(*self.take("B"))]
        rows = []
        for _ in range(levels):
            mean, activity, coarse = self.take("BBB")
            biases = np.array(self.take(f"{4 * channels}h"), np.int16).reshape(channels, 2, 2)
            rows.append(Level(mean, activity, coarse, biases))
        return Context(cap, shift, thresholds, shapes, means, activities, rows)

    def mean(self, neighbours: int) -> tuple[list[int], list[Tap]]:
        """Weights of so many neighbours, and the taps."""
        weights = list(self.take(f"{neighbours}h"))
        taps = []
        for _ in range(*self.take("B")):
            plane, place, weight = self.take("HBh")
            taps.append(Tap(plane, place // 3 - 1, place % 3 - 1, weight))
        return weights, taps


def unpack(data: bytes) -> Tables:
    """The content of a tables file; raises ValueError where it breaks the format."""
    reader = Reader(data)
    magic, version, precision, channels, levels, groups, sections, _ = reader.take("4sBBHBBBB")
    if (magic, version) != (b"NRWT", 2) or precision not in PRECISIONS:
        raise ValueError("tables.bin: wrong magic, version or precision")
    sizes, order = [], []
    if sections & 1:
        sizes, order = list(reader.take(f"{groups}H")), list(reader.take(f"{channels}H"))
    static = [[reader.table(1 << precision) for _ in range(channels)] for _ in range(levels)]
    indexed = reader.indexed(1 << precision, channels, levels) if sections & 2 else None
    context = reader.context(1 << precision, channels, levels) if sections & 4 else None
    if reader.at != len(data):
        raise ValueError("tables.bin: bytes are left over")
    return Tables(static, precision, order, sizes, indexed, context)


def histogram(symbols: np.ndarray) -> np.ndarray:
    """Counts i64 [C,256] of symbols i8 [N,C,...]."""
    channels = symbols.shape[1]
    flat = np.moveaxis(symbols, 1, 0).reshape(channels, -1).astype(np.int64) + 128
    return np.stack([np.bincount(row, minlength=256) for row in flat])


def static(symbols: list[np.ndarray], priors: list[np.ndarray], precisions: tuple[int, ...] = PRECISIONS) -> tuple[int, list[list[Table]]]:
    """Precision, and one table per level and channel, from symbols i8 [N,C,h,w] and priors [C,256] of each level."""
    return from_counts([histogram(level) for level in symbols], priors, precisions)


def from_counts(
    counts: list[np.ndarray], priors: list[np.ndarray], precisions: tuple[int, ...] = PRECISIONS
) -> tuple[int, list[list[Table]]]:
    """As `static`, from counts [C,256] of each level; the first precision that all tables fit, or the last one."""
    for precision in precisions:
        made = [[table(c, p, precision=precision) for c, p in zip(*level, strict=True)] for level in zip(counts, priors, strict=True)]
        if max(t.count for level in made for t in level) < WIDE:
            break
    return precision, made
