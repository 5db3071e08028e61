"""The runs of each channel and the table of each value (FORMAT.md, section 5)."""

from __future__ import annotations

from collections.abc import Callable

from .fields import require, wrap_i16
from .rans import cost
from .tables import NEIGHBOURS, Table, Tables

RAW, STATIC, ZSTD, INDEXED, CONTEXT, COLUMNS, ROWS = range(7)
CONTEXT_MODES = (CONTEXT, COLUMNS, ROWS)

Plane = list[list[int]]
# Codes one run: the table of each value, and the values where they are known (when encoding). Returns the values.
Run = Callable[..., list[int]]


class ChannelCoder:
    """Derives runs and tables channel by channel, in the order of coding, for one packet in either direction.

    `planes` holds what is known of the channels, by channel: all of them before encoding, those already decoded
    while decoding. In mode rows its planes, like `shape`, have rows and columns exchanged.
    """

    def __init__(self, tables: Tables, shape: tuple[int, int, int], level: int, mode: int):
        self.tables, self.level, self.mode = tables, level, mode
        self.shape = shape = (shape[0], shape[2], shape[1]) if mode == ROWS else shape
        self.byte_table = Table(0, [1 << (tables.precision - 8)] * 256, tables.precision)
        self.planes: dict[int, Plane] = {}
        self.activity = [[0] * shape[2] for _ in range(shape[1])]  # A of section 5.3
        self.cost = 0

    def code(self, channel: int, run: Run) -> None:
        """Codes a channel by a call of `run` for each of its runs, and keeps its plane."""
        tables, (_, height, width) = self.tables, self.shape
        known = self.planes.get(channel)
        if self.mode in CONTEXT_MODES:
            return self._code_context(channel, run, known)
        if self.mode == STATIC:
            chosen = [tables.static[self.level][channel]] * (height * width)
        else:
            chosen = self._code_indices(channel, run, known)
        flat = run(chosen, known and [s for row in known for s in row])
        self.planes[channel] = [flat[y * width : (y + 1) * width] for y in range(height)]

    def _code_indices(self, channel: int, run: Run, known: Plane | None) -> list[Table]:
        """Codes the table index of each tile (section 5.2). Returns the table of each symbol."""
        tables, (_, height, width) = self.tables, self.shape
        tall, wide = min(tables.tile or height, height), min(tables.tile or width, width)
        rows, columns, count = -(-height // tall), -(-width // wide), len(tables.indexed)
        deltas = tables.deltas[self.level]

        def predicted(indices: list[int]) -> int:
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

                costs = []
                for k, table in enumerate(tables.indexed):
                    delta = (k - predicted(indices)) % count
                    symbols = sum(cost(table, table.entry(s), tables.precision) for s in inside)
                    costs.append(symbols + cost(deltas, delta, tables.precision))
                best = costs.index(min(costs))
                values.append((best - predicted(indices)) % count)
                indices.append(best)
        values = run([deltas] * (rows * columns), values, sampled=False)
        indices = []
        for value in values:
            require(0 <= value < count, "index of a tile")
            indices.append((predicted(indices) + value) % count)
        return [tables.indexed[indices[y // tall * columns + x // wide]] for y in range(height) for x in range(width)]

    def _code_context(self, channel: int, run: Run, known: Plane | None) -> None:
        """Codes a channel whose tables follow from what is already coded (section 5.3)."""
        t, (_, height, width) = self.tables, self.shape
        (mean_set, activity_set, coarse), biases = t.biases[self.level]
        plane = [[0] * width for _ in range(height)]
        magnitudes = [[0] * width for _ in range(height)]

        def at(plane: Plane, y: int, x: int) -> int:
            return plane[y][x] if 0 <= y < height and 0 <= x < width else 0

        a = self.activity
        h = [[2 * at(a, y, x) + at(a, y, x - 1) + at(a, y, x + 1) for x in range(width)] for y in range(height)]
        b = [[(2 * h[y][x] + at(h, y - 1, x) + at(h, y + 1, x)) >> 4 for x in range(width)] for y in range(height)]
        for y in range(height):
            for phase in (0, 1):
                own, taps = t.means[mean_set][channel][phase]
                strengths, far, wide = t.activities[activity_set][channel][phase]
                mean_bias, activity_bias = biases[channel][phase]
                columns = range(phase, width, 2)
                chosen, means = [], []
                for x in columns:
                    around = [(y + dy, x + dx) for dy, dx in NEIGHBOURS[phase]]
                    mq = 16 * mean_bias + sum(w * at(plane, *place) for w, place in zip(own, around))
                    for source, place, weight in taps:
                        mq += weight * at(self.planes[source], y + place // 3 - 1, x + place % 3 - 1)
                    mq >>= 8
                    if len({at(plane, *place) for place in around}) == 1 or self.mode != CONTEXT:
                        mq = 4 * at(plane, y - 1, x)
                    e = (activity_bias << (t.shift - 4)) + far * a[y][x] + wide * b[y][x]
                    e += sum(w * at(magnitudes, *place) for w, place in zip(strengths, around))
                    e = max(0, e >> t.shift)
                    shape = sum(threshold <= e for threshold in t.thresholds)
                    chosen.append(t.context_tables[4 * shape + mq % 4])
                    means.append(mq)
                values = known and [wrap_i16(known[y][x] - (mq >> 2)) for x, mq in zip(columns, means)]
                values = run(chosen, values) if chosen else []
                for x, mq, value in zip(columns, means, values):
                    plane[y][x] = wrap_i16(value + (mq >> 2))
                    magnitudes[y][x] = min(abs(4 * plane[y][x] - mq) >> coarse, t.cap)
        self.planes[channel] = plane
        self.activity = [[old - (old >> 2) + 8 * m for old, m in zip(*rows)] for rows in zip(a, magnitudes)]
