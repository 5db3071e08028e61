"""Packets (FORMAT.md, sections 3, 4 and 6)."""

from __future__ import annotations

import struct
import zlib
from functools import partial

from . import zstd_frame
from .channel import CONTEXT_MODES, INDEXED, RAW, ROWS, ZSTD, ChannelCoder, Plane
from .fields import FieldReader, number, require
from .rans import LOWEST, Lanes, cost
from .tables import Table, Tables

MODES = ["raw", "static", "zstd", "indexed", "context", "columns", "rows"]
LANES = [1, 2, 4, 8, 16, 32]
Shape = tuple[int, int, int]


def crc(tables: Tables, header: bytes, planes, channels: list[int]) -> int:
    """The checksum over the digest, the header and the symbols of `channels` (section 3)."""
    flat = [s for c in channels for row in planes[c] for s in row]
    return zlib.crc32(tables.digest + header + struct.pack(f"<{len(flat)}h", *flat))


def lane_shares(checksum: int, lanes: int) -> list[int]:
    """The bits of the checksum that the first state of each lane holds."""
    return [checksum >> 15 * lane & 0x7FFF if lane < 3 else 0 for lane in range(lanes)]


def transposed(plane: Plane) -> Plane:
    return [list(row) for row in zip(*plane)]


def decode(tables: Tables, shape: Shape, packet: bytes) -> tuple[dict[int, Plane], int]:
    """The planes by channel, and how many groups the packet holds. Raises FormatError when it is damaged."""
    require(len(packet) >= 4, "header")
    header, data = packet[:4], FieldReader(packet[4:])
    mode, level = header[0] & 15, header[1] & 15
    require(header[0] >> 4 == 2, "version")
    require(mode < len(MODES), "mode")
    require(level < tables.levels, "level")
    require(header[3] == tables.digest[0], "table id")
    require(mode != INDEXED or tables.has_indexed, "mode")
    require(mode not in CONTEXT_MODES or tables.has_context, "mode")
    if mode in (RAW, ZSTD):
        return decode_plain(tables, shape, header, data), 1
    return decode_coded(tables, shape, header, data)


def decode_plain(tables: Tables, shape: Shape, header: bytes, data: FieldReader) -> dict[int, Plane]:
    """The planes of a payload of mode raw or zstd (section 6)."""
    channels, height, width = shape
    require(header[2] in (1, 2), "layout")
    checksum, size = data.take("I"), header[2] * channels * height * width
    body = data.data[data.at :]
    if header[0] & 15 == ZSTD:
        body = zstd_frame.decompress(body, size)
    require(len(body) == size, "symbols")
    flat = struct.unpack(f"<{channels * height * width}{'bh'[header[2] - 1]}", body)
    rows = [list(flat[i : i + width]) for i in range(0, len(flat), width)]
    planes = {c: rows[c * height : (c + 1) * height] for c in range(channels)}
    require(crc(tables, header, planes, tables.order) == checksum, "checksum")
    return planes


def decode_coded(tables: Tables, shape: Shape, header: bytes, data: FieldReader) -> tuple[dict[int, Plane], int]:
    """The planes of a payload of a coded mode, and how many groups it holds (section 4)."""
    mode, level, layout = header[0] & 15, header[1] & 15, header[2]
    require(layout & 7 < len(LANES), "layout")
    lanes, groups = LANES[layout & 7], (layout >> 3) + 1
    require(groups in (1, len(tables.groups)), "groups")
    directory = [(data.number(), data.take("H")) for _ in range(groups - 1)]
    states = read_states(data, lanes)
    count, odd = divmod(len(data.data) - data.at, 2)
    require(odd == 0, "words")
    words = data.list(count, "H")
    ends = [sum(w for w, _ in directory[: i + 1]) for i in range(groups - 1)]
    groups_decoded = max((i + 1 for i, end in enumerate(ends) if end == count), default=groups)
    require(groups_decoded < groups or not ends or count > ends[-1], "words")
    coder, rans = ChannelCoder(tables, shape, level, mode), Lanes(states, words, tables.precision)

    def feature_planes() -> dict[int, Plane]:
        return {c: transposed(plane) if mode == ROWS else plane for c, plane in coder.planes.items()}

    def run(chosen: list[Table], _values: None, sampled: bool = True) -> list[int]:
        entries = [rans.get(i % lanes, table) for i, table in enumerate(chosen)]
        values, byte = [], 0
        for table, entry in zip(chosen, entries):
            value = table.low + entry
            if entry == table.count:
                pair = bytes(rans.get((byte + i) % lanes, coder.byte_table) for i in (0, 1))
                byte += 2
                value = struct.unpack("<h", pair)[0]
                require(table.entry(value) == table.count, "escaped value")
            values.append(value)
        return values

    done = []
    for group, members in enumerate(tables.groups if groups == 1 else tables.groups[:groups_decoded]):
        for channel in members:
            coder.code(channel, run)
            done.append(channel)
        if group < groups - 1:
            require(rans.at == ends[group], "words of a group")
            require(crc(tables, header, feature_planes(), done) & 0xFFFF == directory[group][1], "check of a group")
    if groups_decoded == groups:
        require(rans.at == count, "words")
        checksum = crc(tables, header, feature_planes(), done)
        require([state - LOWEST for state in rans.states] == lane_shares(checksum, lanes), "checksum")
    planes = feature_planes()
    for channel in set(tables.order) - set(done):
        median = tables.static[level][channel].median()
        planes[channel] = [[median] * shape[2] for _ in range(shape[1])]
    return planes, groups_decoded


def read_states(data: FieldReader, lanes: int) -> list[int]:
    """The state of each lane from its bits, which end with the byte that holds the last one."""
    bits = "".join(f"{byte:08b}"[::-1] for byte in data.data[data.at :])
    states, at = [], 0
    for _ in range(lanes):
        require(at + 4 <= len(bits), "states")
        top = int(bits[at : at + 4][::-1], 2) + 15
        require(at + 4 + top <= len(bits), "states")
        states.append(1 << top | int(bits[at + 4 : at + 4 + top][::-1], 2))
        at += 4 + top
    size = -(-at // 8)
    require("1" not in bits[at : 8 * size], "padding")
    data.at += size
    return states


def write_states(states: list[int]) -> bytes:
    """The states as bits, filled with zeros to a whole byte."""
    bits = ""
    for state in states:
        top = state.bit_length() - 1
        bits += f"{top - 15:04b}"[::-1] + f"{state - (1 << top):0{top}b}"[::-1]
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


def encode(
    tables: Tables,
    shape: Shape,
    geometry: int,
    level: int,
    mode: int,
    planes: list[Plane],
    truncatable: bool = False,
    lanes: int | None = None,
) -> bytes:
    """The packet of planes[channel][row][column]. The number of lanes follows from the size unless it is given."""

    def header(layout: int) -> bytes:
        return bytes([0x20 | mode, geometry << 4 | level, layout, tables.digest[0]])

    if mode in (RAW, ZSTD):
        flat = [s for plane in planes for row in plane for s in row]
        width = 1 if all(-128 <= s <= 127 for s in flat) else 2
        body = struct.pack(f"<{len(flat)}{'bh'[width - 1]}", *flat)
        checksum = struct.pack("<I", crc(tables, header(width), planes, tables.order))
        return header(width) + checksum + (zstd_frame.store(body) if mode == ZSTD else body)
    coder = ChannelCoder(tables, shape, level, mode)
    coder.planes = {c: transposed(plane) if mode == ROWS else [list(row) for row in plane] for c, plane in enumerate(planes)}
    runs = {channel: [] for channel in tables.order}

    def run(channel: int, chosen: list[Table], values: list[int], sampled: bool = True) -> list[int]:
        runs[channel].append((chosen, values))
        for table, value in list(zip(chosen, values))[::8] if sampled else ():
            coder.cost += cost(table, table.entry(value), tables.precision)
        return values

    for channel in tables.order:
        coder.code(channel, partial(run, channel))
    estimate = coder.cost // 256
    limits = (256, 896, 1920, 4608) if mode in CONTEXT_MODES else (256, 1792, 3840, 24576, 24576)
    code = LANES.index(lanes) if lanes else sum(estimate >= limit for limit in limits)
    groups = len(tables.groups) if truncatable else 1
    lanes = LANES[code]
    layout = (groups - 1) << 3 | code
    checksum = crc(tables, header(layout), planes, tables.order)
    rans = Lanes([LOWEST + share for share in lane_shares(checksum, lanes)], [], tables.precision)
    counts = []
    for members in reversed(tables.groups):
        before = len(rans.words)
        for channel in reversed(members):
            for chosen, values in reversed(runs[channel]):
                entries = [table.entry(value) for table, value in zip(chosen, values)]
                escaped = [v for t, e, v in zip(chosen, entries, values) if e == t.count]
                for i, byte in reversed(list(enumerate(struct.pack(f"<{len(escaped)}h", *escaped)))):
                    rans.put(i % lanes, coder.byte_table, byte)
                for i in reversed(range(len(entries))):
                    rans.put(i % lanes, chosen[i], entries[i])
        counts.insert(0, len(rans.words) - before)
    if groups > 1 and counts[-1] == 0:
        return encode(tables, shape, geometry, level, mode, planes, False, lanes)
    out = header(layout)
    for group in range(groups - 1):
        done = [c for members in tables.groups[: group + 1] for c in members]
        out += number(counts[group]) + struct.pack("<H", crc(tables, header(layout), planes, done) & 0xFFFF)
    return out + write_states(rans.states) + struct.pack(f"<{len(rans.words)}H", *reversed(rans.words))
