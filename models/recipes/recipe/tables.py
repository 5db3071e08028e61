"""Integer probability tables of the entropy coder (codec/FORMAT.md, section 2).

Counts of training symbols, smoothed by the learned prior, become 12-bit frequencies that sum to 4096.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

TOTAL = 4096
REGULAR_LIMIT = 200  # regular symbols in one table
SMOOTHING = 64.0  # symbols of prior belief added to the counts
KEEP = 0.5 / TOTAL  # symbols rarer than this at the edges go to the escape


@dataclass(frozen=True)
class Table:
    low: int
    freq: np.ndarray  # i64 [count + 1], the last is the escape

    @property
    def count(self) -> int:
        return len(self.freq) - 1

    def bits(self, counts: np.ndarray) -> float:
        """Bits to code a histogram [256] of the symbols -128..127, escapes at 16 bits more."""
        first = self.low + 128
        cost = -np.log2(self.freq / TOTAL)
        regular = counts[first : first + self.count]
        escaped = counts.sum() - regular.sum()
        return float(regular @ cost[:-1] + escaped * (cost[-1] + 16))


def table(counts: np.ndarray, prior: np.ndarray) -> Table:
    """From a histogram [256] and a prior [256] of the symbols -128..127."""
    belief = counts + SMOOTHING * prior / max(prior.sum(), 1e-12)
    share = belief / belief.sum()
    kept = np.flatnonzero(share >= KEEP)
    low, high = (int(kept[0]), int(kept[-1])) if len(kept) else (128, 128)
    high = min(high, low + REGULAR_LIMIT - 1)
    inside = share[low : high + 1]
    return Table(low - 128, quantise(np.append(inside, max(1 - inside.sum(), 0.0))))


def quantise(share: np.ndarray, total: int = TOTAL) -> np.ndarray:
    """Integer frequencies >= 1 that sum to `total`, as close to `share` as single steps can bring them.

    Every move of one count goes where the expected code length falls most, or rises least.
    """
    if len(share) > total:
        raise ValueError(f"{len(share)} symbols do not fit {total} counts")
    share = np.asarray(share, np.float64) / share.sum()
    freq = np.maximum(np.rint(share * total).astype(np.int64), 1)
    while (extra := int(freq.sum()) - total) != 0:
        if extra > 0:
            loss = np.where(freq > 1, share * np.log(freq / np.maximum(freq - 1, 1)), np.inf)
            freq[int(np.argmin(loss))] -= 1
        else:
            freq[int(np.argmax(share * np.log((freq + 1) / freq)))] += 1
    return freq


def pack(levels: list[list[Table]]) -> bytes:
    """tables.bin: header, then level by level, channel by channel."""
    out = [struct.pack("<4sBBHB3x", b"NRWT", 1, 12, len(levels[0]), len(levels))]
    for level in levels:
        for t in level:
            out.append(struct.pack("<hH", t.low, t.count))
            out.append(t.freq.astype("<u2").tobytes())
    return b"".join(out)


def unpack(data: bytes) -> list[list[Table]]:
    magic, version, precision, channels, levels = struct.unpack_from("<4sBBHB", data)
    if (magic, version, precision) != (b"NRWT", 1, 12):
        raise ValueError("tables.bin: wrong magic, version or precision")
    at, found = 12, []
    for _ in range(levels):
        row = []
        for _ in range(channels):
            low, count = struct.unpack_from("<hH", data, at)
            freq = np.frombuffer(data, "<u2", count + 1, at + 4).astype(np.int64)
            if freq.min() < 1 or freq.sum() != TOTAL:
                raise ValueError(f"tables.bin: a table at byte {at} does not sum to {TOTAL}")
            row.append(Table(low, freq))
            at += 4 + 2 * (count + 1)
        found.append(row)
    if at != len(data):
        raise ValueError("tables.bin: bytes are left over")
    return found


def histogram(symbols: np.ndarray) -> np.ndarray:
    """Symbols i8 [N,C,...] to counts i64 [C,256]."""
    channels = symbols.shape[1]
    flat = np.moveaxis(symbols, 1, 0).reshape(channels, -1).astype(np.int64) + 128
    return np.stack([np.bincount(row, minlength=256) for row in flat])
