"""Decodes packets and writes the golden ones, by codec/FORMAT.md alone.

Examples:

    python -m narrows_reference decode tables.bin packet --shape C,H,W > symbols     # i16, little-endian, C, H, W
    python -m narrows_reference golden codec/tests/golden                            # rewrites the folder's files
"""

import argparse
import pathlib
import struct
import sys

from .fields import FormatError
from .golden import write_golden
from .packet import decode
from .tables import Tables


def shape(text: str) -> tuple[int, int, int]:
    channels, height, width = (int(side) for side in text.split(","))
    return channels, height, width


def main() -> None:
    parser = argparse.ArgumentParser(prog="narrows_reference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    writer = commands.add_parser("golden", help="rewrite the golden files")
    writer.add_argument("folder", type=pathlib.Path)
    reader = commands.add_parser("decode", help="decode a packet to standard output")
    reader.add_argument("tables", type=pathlib.Path)
    reader.add_argument("packet", type=pathlib.Path)
    reader.add_argument("--shape", type=shape, required=True, help="channels,height,width")
    options = parser.parse_args()
    if options.command == "golden":
        return write_golden(options.folder)
    try:
        tables = Tables(options.tables.read_bytes())
        planes, groups = decode(tables, options.shape, options.packet.read_bytes())
    except FormatError as error:
        sys.exit(f"narrows_reference: not what FORMAT.md describes: {error}")
    flat = [s for channel in range(options.shape[0]) for row in planes[channel] for s in row]
    sys.stdout.buffer.write(struct.pack(f"<{len(flat)}h", *flat))
    print(f"{groups} groups", file=sys.stderr)


if __name__ == "__main__":
    main()
