"""Packets as codec/reference writes them, the second implementation of codec/FORMAT.md, and what one takes."""

from __future__ import annotations

import hashlib

import narrows_reference as codec
import numpy as np

from . import context
from .tables import Tables, histogram

HEADER = 4
LANES = ((256, 1), (1792, 2), (3840, 4), (24576, 8))  # bytes below which an encoder takes so many lanes
LANES_OF_CONTEXT = ((256, 1), (896, 2), (1920, 4), (4608, 8))
LANE_BYTES = 1.9  # what a lane's state takes beyond the seal that it carries and the symbols that it holds


def encode(packed: bytes, geometry: int, level: int, symbols: np.ndarray) -> bytes:
    """The packet of symbols i8 [C,h,w] in mode static, with the tables file `packed`."""
    return codec.encode(codec.Tables(packed), symbols.shape, geometry, level, codec.STATIC, symbols.tolist())


def decode(packed: bytes, shape: tuple[int, int, int], packet: bytes) -> np.ndarray:
    """Symbols i16 of a whole packet; raises FormatError when it is damaged."""
    planes, _ = codec.decode(codec.Tables(packed), shape, packet)
    return np.array([planes[channel] for channel in range(shape[0])], np.int16)


def table_id(packed: bytes) -> bytes:
    return hashlib.sha256(packed).digest()[:4]


def size(tables: Tables, level: int, symbols: np.ndarray) -> float:
    """Expected bytes of the packet of symbols i8 [C,h,w], without writing it (within a few bytes)."""
    if tables.context:
        bits = context.bits(tables.context, tables.order, level, symbols)
    else:
        bits = sum(table.bits(row) for table, row in zip(tables.static[level], histogram(symbols[None]), strict=True))
    borders = LANES_OF_CONTEXT if tables.context else LANES
    lanes = next((lanes for limit, lanes in borders if bits / 8 < limit), 16 if tables.context else 32)
    return HEADER + bits / 8 + LANE_BYTES * lanes
