from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Mode: TypeAlias = Literal["static", "indexed", "context", "columns", "rows", "raw", "zstd"]
Symbols: TypeAlias = NDArray[np.int8] | NDArray[np.uint8] | NDArray[np.int16]

class CodecError(ValueError):
    """A packet, a tables file or an argument was refused; the text names the field and what was expected."""

class Tables:
    """The probability tables of a bundle."""

    def __init__(self, data: bytes) -> None:
        """Parse `tables.bin`. Raises CodecError when it is not what codec/FORMAT.md, section 2, describes."""

    @property
    def channels(self) -> int:
        """Channels of a feature."""

    @property
    def levels(self) -> int:
        """Rate levels, finest first."""

    @property
    def groups(self) -> int:
        """Groups of channels that a truncatable packet can be cut into."""

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
    """Code one feature.

    Args:
        tables: of the bundle that the reader holds as well.
        symbols: integers, shape [channels, height, width].
        level: index of the rate level.
        geometry: index of the bundle's geometry, 0 to 15; it only travels in the packet.
        mode: how; "auto" takes the smallest that the tables allow.
        truncatable: whether the packet may be cut where a group of channels ends.
        lanes: how many states code in turns; 0 goes by the size of the packet.

    Returns:
        The packet: the bytes that the Rust crate writes.

    Raises:
        CodecError: for another number of channels, a level or geometry out of range, or a mode that the tables lack.
    """

def decode(tables: Tables, packet: bytes, shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """Decode one packet, whole or cut where a group ends.

    Args:
        tables: those the packet was made with.
        packet: the bytes.
        shape: [channels, height, width] of the feature; the packet does not say it.

    Returns:
        The symbols, shape [channels, height, width]; those of missing channels are the median of their table.

    Raises:
        CodecError: when the packet is damaged, cut elsewhere, or made with other tables.
    """

def bits(tables: Tables, symbols: Symbols, *, level: int = 0, mode: Mode = "static") -> float:
    """What a feature's symbols cost under the tables of a mode, in bits, without header and states.

    Args:
        tables: of the bundle.
        symbols: integers, shape [channels, height, width].
        level: index of the rate level.
        mode: "static", "indexed" (indices included), "context", "columns" or "rows".

    Returns:
        Bits, to 1/256. Divide by `symbols.size` for bits per symbol.

    Raises:
        CodecError: as `encode`, and for modes "raw" and "zstd", which have no tables.
    """
