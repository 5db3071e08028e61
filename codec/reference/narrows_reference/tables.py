"""The tables file (FORMAT.md, section 2)."""

from __future__ import annotations

import hashlib
import struct

from .fields import FieldReader, number, require

# The own neighbours of a symbol in phase 0 and phase 1, as (row, column) from its place.
NEIGHBOURS = [[(-1, 0), (-1, -1), (-1, 1), (-2, 0)], [(0, -1), (0, 1), (-1, 0), (-1, -1), (-1, 1)]]


class Table:
    """A distribution of `count` regular values from `low` up and an escape (section 2.1)."""

    def __init__(self, low: int, freqs: list[int], precision: int):
        require(sum(freqs) == 1 << precision and min(freqs) >= 1 and len(freqs) >= 2, "frequencies")
        self.low, self.freqs, self.count = low, freqs, len(freqs) - 1
        self.starts = [0]
        for freq in freqs:
            self.starts.append(self.starts[-1] + freq)
        self.slots = [i for i, freq in enumerate(freqs) for _ in range(freq)]

    @classmethod
    def read(cls, data: FieldReader, precision: int) -> Table:
        low, count = data.take("h"), data.number()
        return cls(low, [data.number() for _ in range(count + 1)], precision)

    def bytes(self) -> bytes:
        return struct.pack("<h", self.low) + number(self.count) + b"".join(map(number, self.freqs))

    def entry(self, value: int) -> int:
        """Index of the value's frequency; the escape's is `count`."""
        return value - self.low if 0 <= value - self.low < self.count else self.count

    def median(self) -> int:
        half = sum(self.freqs) // 2
        return next((self.low + i for i in range(self.count) if self.starts[i + 1] >= half), self.low + self.count - 1)


class Tables:
    """A parsed tables file."""

    def __init__(self, blob: bytes):
        self.digest = hashlib.sha256(blob).digest()
        data = FieldReader(blob)
        require(data.take("4s") == b"NRWT", "magic")
        require(data.take("B") == 2, "version")
        self.precision, self.channels, self.levels, groups, sections, reserved = data.take("BHBBBB")
        require(self.precision in (12, 14), "precision")
        require(reserved == 0, "reserved")
        require(sections < 8, "sections")
        sizes, order = [self.channels], list(range(self.channels))
        if sections & 1:
            sizes, order = data.list(groups, "H"), data.list(self.channels, "H")
        require(sum(sizes) == self.channels and len(sizes) == groups, "sizes of groups")
        require(sorted(order) == list(range(self.channels)), "order")
        self.order = order
        self.groups = [order[sum(sizes[:i]) : sum(sizes[: i + 1])] for i in range(groups)]
        self.static = [[self._table(data) for _ in range(self.channels)] for _ in range(self.levels)]
        self.has_indexed, self.has_context = bool(sections & 2), bool(sections & 4)
        if self.has_indexed:
            self._read_indexed(data)
        if self.has_context:
            self._read_context(data)
        require(data.at == len(blob), "bytes after the last section")

    def _table(self, data: FieldReader) -> Table:
        return Table.read(data, self.precision)

    def _read_indexed(self, data: FieldReader) -> None:
        """Section 2.3."""
        self.tile, count = data.take("BB")
        self.indexed = [self._table(data) for _ in range(count)]
        self.bases, self.deltas = [], []
        for _ in range(self.levels):
            self.bases.append(data.list(self.channels, "B"))
            self.deltas.append(self._table(data))

    def _read_context(self, data: FieldReader) -> None:
        """Section 2.4."""
        self.cap, self.shift, shapes = data.take("BBB")
        self.thresholds = data.list(shapes - 1, "H")
        self.context_tables = [self._table(data) for _ in range(4 * shapes)]

        def phases(read) -> list[list]:
            return [[read(phase) for phase in (0, 1)] for _ in range(self.channels)]

        def mean(phase: int) -> tuple:
            own = data.list(len(NEIGHBOURS[phase]), "h")
            return own, [data.take("HBh") for _ in range(data.take("B"))]

        def activity(phase: int) -> tuple:
            return data.list(len(NEIGHBOURS[phase]), "h"), data.take("h"), data.take("h")

        self.means = [phases(mean) for _ in range(data.take("B"))]
        self.activities = [phases(activity) for _ in range(data.take("B"))]
        self.biases = []
        for _ in range(self.levels):
            sets = data.take("BBB")
            self.biases.append((sets, phases(lambda _: data.take("hh"))))
