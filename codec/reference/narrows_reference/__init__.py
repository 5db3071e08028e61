"""The narrows bitstream in plain Python: a second implementation of codec/FORMAT.md, made from the document alone."""

from .channel import COLUMNS, CONTEXT, INDEXED, RAW, ROWS, STATIC, ZSTD
from .fields import FormatError
from .packet import CONTEXT_MODES, MODES, decode, encode
from .tables import Table, Tables

__all__ = [
    "COLUMNS",
    "CONTEXT",
    "CONTEXT_MODES",
    "INDEXED",
    "MODES",
    "RAW",
    "ROWS",
    "STATIC",
    "ZSTD",
    "FormatError",
    "Table",
    "Tables",
    "decode",
    "encode",
]
