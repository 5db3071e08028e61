"""Little-endian fields and LEB128 numbers (FORMAT.md, section 1)."""

from __future__ import annotations

import struct


class FormatError(ValueError):
    """Bytes that FORMAT.md does not allow."""


def require(condition: bool, field: str) -> None:
    """Raises FormatError, naming `field`, unless `condition` holds."""
    if not condition:
        raise FormatError(field)


def wrap_i16(x: int) -> int:
    """x mod 2^16 as a signed number."""
    return (x + 0x8000) % 0x10000 - 0x8000


class FieldReader:
    """Reads fields of `data` one after the other; `at` is the offset of the next one."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, form: str):
        """The values of a `struct` format; the value itself where the format has one."""
        values = self._unpack(form)
        return values if len(values) > 1 else values[0]

    def list(self, count: int, kind: str) -> list[int]:
        """`count` integers of one `struct` format character."""
        return list(self._unpack(f"{count}{kind}"))

    def number(self) -> int:
        """A number in LEB128, in its shortest form and of at most four bytes."""
        value = shift = 0
        while True:
            byte = self.take("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                require(shift <= 28 and (byte != 0 or shift == 7), "a number in its shortest form")
                return value

    def _unpack(self, form: str) -> tuple:
        size = struct.calcsize("<" + form)
        require(self.at + size <= len(self.data), "the bytes end too early")
        self.at += size
        return struct.unpack_from("<" + form, self.data, self.at - size)


def number(value: int) -> bytes:
    """`value`, below 2^28, in LEB128."""
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])
