from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Mode: TypeAlias = Literal["static", "indexed", "context", "columns", "rows", "raw", "zstd"]
Symbols: TypeAlias = NDArray[np.int8] | NDArray[np.uint8] | NDArray[np.int16]

class CodecError(ValueError):
    """A packet, a tables file or an argument was refused. The text names the field and what was expected."""

class Tables:
    """The probability tables of a bundle."""

    def __init__(self, data: bytes) -> None:
        """Parse `tables.bin` (codec/FORMAT.md, section 2). Raises CodecError when a field is invalid."""

    @property
    def channels(self) -> int:
        """The number of channels of a feature."""

    @property
    def levels(self) -> int:
        """The number of rate levels. Level 0 is the finest."""

    @property
    def groups(self) -> int:
        """The number of channel groups, after each of which a truncatable packet may be cut."""

def encode(
    tables: Tables,
    symbols: Symbols,
    *,
    level: int = 0,
    geometry: int = 0,
    mode: Mode | Literal["auto"] = "auto",
    truncatable: bool = False,
    lanes: Literal[0, 1, 2, 4, 8, 16, 32] = 0,
) -> bytes:
    """Encode one feature.

    Args:
        tables: the tables of the bundle. The decoder needs the same.
        symbols: integers, shape [channels, height, width].
        level: index of the rate level.
        geometry: index of the bundle's geometry, 0 to 15. It is written to the packet and has no other effect.
        mode: the coding mode; "auto" uses the one with the smallest packet of those that the tables support.
        truncatable: whether the packet may be cut where a group of channels ends.
        lanes: the number of interleaved coder states; with 0 it follows from the size of the packet.

    Returns:
        The packet, byte for byte as the Rust crate writes it.

    Raises:
        CodecError: for another number of channels, a level or geometry out of range, or a mode that the tables do not support.
    """

def decode(tables: Tables, packet: bytes, shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """Decode one packet, whole or cut where a group ends.

    Args:
        tables: those that the packet was encoded with.
        packet: the bytes.
        shape: [channels, height, width] of the feature, which is not part of the packet.

    Returns:
        The symbols, shape [channels, height, width]; channels that a cut packet lacks are filled with the median of their table.

    Raises:
        CodecError: when the packet is damaged, cut inside a group, or was encoded with other tables.
    """

def bits(tables: Tables, symbols: Symbols, *, level: int = 0, mode: Mode = "static") -> float:
    """Compute the cost of a feature's symbols under the tables of a mode, without header and states.

    Args:
        tables: the tables of the bundle.
        symbols: integers, shape [channels, height, width].
        level: index of the rate level.
        mode: "static", "indexed" (tile indices included), "context", "columns" or "rows".

    Returns:
        Bits, in steps of 1/256. Divide by `symbols.size` for bits per symbol.

    Raises:
        CodecError: as for `encode`, and for modes "raw" and "zstd", which have no tables.
    """
