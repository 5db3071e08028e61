"""Range ANS in lanes (FORMAT.md, sections 4.2 and 4.3)."""

from __future__ import annotations

from .fields import require
from .tables import Table

LOWEST = 1 << 15  # the smallest state


class Lanes:
    """The states of the lanes and their words. Decoding takes words from the front; encoding goes backwards."""

    def __init__(self, states: list[int], words: list[int], precision: int):
        self.states, self.words, self.precision, self.at = states, words, precision, 0

    def get(self, lane: int, table: Table) -> int:
        """Decodes an entry of `table`."""
        x, bits = self.states[lane], self.precision
        slot = x % (1 << bits)
        entry = table.slots[slot]
        x = table.freqs[entry] * (x >> bits) + slot - table.starts[entry]
        if x < LOWEST:
            require(self.at < len(self.words), "words end too early")
            x = x << 16 | self.words[self.at]
            self.at += 1
        self.states[lane] = x
        return entry

    def put(self, lane: int, table: Table, entry: int) -> None:
        """Encodes an entry of `table`."""
        x, freq = self.states[lane], table.freqs[entry]
        if x >= freq << (31 - self.precision):
            self.words.append(x & 0xFFFF)
            x >>= 16
        self.states[lane] = (x // freq << self.precision) + x % freq + table.starts[entry]


def log2_256(f: int) -> int:
    """The logarithm of a frequency in 1/256, as section 4.3 has it."""
    top = f.bit_length() - 1
    x, result = f << (31 - top), top
    for _ in range(8):
        x = x * x >> 31
        result *= 2
        if x >= 1 << 32:
            x, result = x >> 1, result + 1
    return result


def cost(table: Table, entry: int, precision: int) -> int:
    """What an entry costs, in 1/256 bit."""
    return 256 * precision - log2_256(table.freqs[entry]) + (4096 if entry == table.count else 0)
