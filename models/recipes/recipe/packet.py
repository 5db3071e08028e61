"""Packets, written and read by the reference codec (codec/reference), and the expected size of a packet."""

from __future__ import annotations

import narrows_reference as codec
import numpy as np

from . import context
from .tables import Tables, histogram

HEADER = 4  # bytes of a packet header (codec/FORMAT.md, section 3)
# Payload bytes below which an encoder uses so many rANS lanes (codec/FORMAT.md, section 4.3)
LANES = ((256, 1), (1792, 2), (3840, 4), (24576, 8))
LANES_OF_CONTEXT = ((256, 1), (896, 2), (1920, 4), (4608, 8))
LANE_BYTES = 1.9  # mean cost of one lane: its stored state, less the checksum bits and the symbols that the state carries


def encode(packed: bytes, geometry: int, level: int, symbols: np.ndarray) -> bytes:
    """The packet of symbols i8 [C,h,w] in mode static, with the tables file `packed`."""
    return codec.encode(codec.Tables(packed), symbols.shape, geometry, level, codec.STATIC, symbols.tolist())


def decode(packed: bytes, shape: tuple[int, int, int], packet: bytes) -> np.ndarray:
    """Symbols i16 [C,h,w] of an entire packet.

    Raises `narrows_reference.FormatError` if the packet is damaged.
    """
    planes, _ = codec.decode(codec.Tables(packed), shape, packet)
    return np.array([planes[channel] for channel in range(shape[0])], np.int16)


def expected_bytes(tables: Tables, level: int, symbols: np.ndarray) -> float:
    """Size of the packet of symbols i8 [C,h,w] from their ideal code length, within a few bytes of the real packet."""
    if tables.context:
        bits = context.bits(tables.context, tables.order, level, symbols)
    else:
        bits = sum(table.bits(row) for table, row in zip(tables.static[level], histogram(symbols[None]), strict=True))
    limits = LANES_OF_CONTEXT if tables.context else LANES
    lanes = next((lanes for limit, lanes in limits if bits / 8 < limit), 16 if tables.context else 32)
    return HEADER + bits / 8 + LANE_BYTES * lanes
