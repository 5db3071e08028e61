"""Zstandard frames (RFC 8878) as mode zstd has them (FORMAT.md, section 6)."""

from __future__ import annotations

import struct

from .fields import FormatError, require

MAGIC = 0xFD2FB528
BLOCK_MAX = 128 << 10
STORED, REPEATED = 0, 1  # block types


def store(content: bytes) -> bytes:
    """A frame of blocks that are stored, or one byte repeated. It needs no compressor and never changes."""
    # One segment, no checksum, no dictionary, four bytes for the size of the content.
    out = struct.pack("<IBI", MAGIC, 0b10_1_00000, len(content))
    blocks = [content[at : at + BLOCK_MAX] for at in range(0, len(content), BLOCK_MAX)]
    for at, block in enumerate(blocks):
        kind, held = (REPEATED, block[:1]) if len(set(block)) == 1 else (STORED, block)
        block_header = len(block) << 3 | kind << 1 | (at == len(blocks) - 1)
        out += struct.pack("<I", block_header)[:3] + held
    return out


def decompress(frame: bytes, size: int) -> bytes:
    """The content of a frame, which is of `size` bytes. Needs the package `zstandard`."""
    import zstandard

    try:
        parameters = zstandard.get_frame_parameters(frame)
        require(parameters.content_size == size, "content size of the frame")
        require(len(frame) > 4 and frame[4] & 0x1F == 0, "descriptor of the frame")
        decoder = zstandard.ZstdDecompressor().decompressobj()
        content = decoder.decompress(frame)
    except zstandard.ZstdError as error:
        raise FormatError(f"frame: {error}") from error
    require(decoder.eof and not decoder.unused_data, "end of the frame")
    return content
