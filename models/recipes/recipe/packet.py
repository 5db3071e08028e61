"""Reference entropy coder, mode static (codec/FORMAT.md, sections 3 and 4): slow, plain, exact."""

from __future__ import annotations

import hashlib
import struct
import zlib

import numpy as np

from .tables import TOTAL, Table

HEADER = 12
STATE_LOW = 1 << 15


def lanes_of(symbols: int) -> int:
    return next((lanes for limit, lanes in ((2048, 1), (8192, 2), (16384, 4)) if symbols < limit), 8)


def encode(tables: list[list[Table]], table_id: bytes, geometry: int, level: int, symbols: np.ndarray) -> bytes:
    """Symbols i8 [C,H,W] to the bytes of a packet."""
    channels = symbols.shape[0]
    lanes = lanes_of(symbols.size)
    flat = symbols.reshape(channels, -1)
    lane_of = np.arange(flat.shape[1]) % lanes
    states, words, escapes = [STATE_LOW] * lanes, [], []
    for c in range(channels - 1, -1, -1):
        table = tables[level][c]
        freq = table.freq.tolist()
        start = np.concatenate([[0], np.cumsum(table.freq)]).tolist()
        for p in range(flat.shape[1] - 1, -1, -1):
            value = int(flat[c, p])
            s = value - table.low
            if not 0 <= s < table.count:
                escapes.append(value)
                s = table.count
            lane = int(lane_of[p])
            x = states[lane]
            if x >= freq[s] << 19:
                words.append(x & 0xFFFF)
                x >>= 16
            states[lane] = (x // freq[s]) * TOTAL + x % freq[s] + start[s]
    head = struct.pack("<BBBB", 1 << 4 | 1, level, geometry, lanes) + table_id
    check = zlib.crc32(head + symbols.astype("<i2").tobytes())
    payload = struct.pack(f"<{lanes}I", *states)
    payload += np.array(words[::-1], "<u2").tobytes() + np.array(escapes[::-1], "<i2").tobytes()
    return head + struct.pack("<I", check) + payload


def decode(tables: list[list[Table]], shape: tuple[int, int, int], packet: bytes) -> np.ndarray:
    """The inverse; raises ValueError when the packet is not whole."""
    level, lanes = packet[1], packet[3]
    states = list(struct.unpack_from(f"<{lanes}I", packet, HEADER))
    rest = np.frombuffer(packet, "<u2", offset=HEADER + 4 * lanes).tolist()
    at = 0
    out = np.zeros((shape[0], shape[1] * shape[2]), np.int16)
    escaped = []
    for c in range(shape[0]):
        table = tables[level][c]
        entry = np.repeat(np.arange(table.count + 1), table.freq).tolist()
        freq = table.freq.tolist()
        start = np.concatenate([[0], np.cumsum(table.freq)]).tolist()
        for p in range(out.shape[1]):
            lane = p % lanes
            slot = states[lane] % TOTAL
            s = entry[slot]
            x = freq[s] * (states[lane] // TOTAL) + slot - start[s]
            if x < STATE_LOW:
                x = x << 16 | rest[at]
                at += 1
            states[lane] = x
            out[c, p] = table.low + s
            if s == table.count:
                escaped.append((c, p))
    values = np.array(rest[at:], np.uint16).view(np.int16)
    if len(values) != len(escaped) or any(x != STATE_LOW for x in states):
        raise ValueError("packet: lanes do not end where they began")
    for (c, p), value in zip(escaped, values, strict=True):
        out[c, p] = value
    symbols = out.reshape(shape)
    if zlib.crc32(packet[:8] + symbols.astype("<i2").tobytes()) != struct.unpack_from("<I", packet, 8)[0]:
        raise ValueError("packet: check does not match")
    return symbols


def size(tables: list[list[Table]], level: int, symbols: np.ndarray) -> float:
    """Expected bytes of a packet without writing it (within a few bytes)."""
    counts = np.stack([np.bincount(row.reshape(-1).astype(np.int64) + 128, minlength=256) for row in symbols])
    bits = sum(table.bits(row) for table, row in zip(tables[level], counts, strict=True))
    return HEADER + bits / 8 + 2.5 * lanes_of(symbols.size)


def table_id(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:4]
