"""The reference codec against the golden packets of the crate."""

import shutil
import struct
from pathlib import Path

import pytest

from narrows_reference import MODES, RAW, STATIC, FormatError, Tables, decode, encode
from narrows_reference.golden import KEPT, write_golden

GOLDEN = Path(__file__).resolve().parents[2] / "tests/golden"
PACKETS = sorted(path for path in GOLDEN.iterdir() if path.suffix[1:] in MODES or path.suffix == KEPT)


def case(name: str) -> tuple[Tables, tuple[int, int, int], dict]:
    """Tables, shape and planes of a golden case."""
    channels, height, width, *_ = (int(word) for word in (GOLDEN / f"{name}.shape").read_text().split())
    flat = struct.unpack(f"<{channels * height * width}h", (GOLDEN / f"{name}.symbols").read_bytes())
    rows = [list(flat[at : at + width]) for at in range(0, len(flat), width)]
    planes = {c: rows[c * height : (c + 1) * height] for c in range(channels)}
    return Tables((GOLDEN / f"{name}.tables").read_bytes()), (channels, height, width), planes


def test_there_is_a_golden_packet_of_every_mode():
    assert {path.suffix[1:] for path in PACKETS} >= set(MODES)


@pytest.mark.parametrize("path", PACKETS, ids=lambda path: path.name)
def test_golden_packets_decode_to_their_symbols(path):
    if path.suffix in (".zstd", KEPT):
        pytest.importorskip("zstandard")
    tables, shape, planes = case(path.stem)
    assert decode(tables, shape, path.read_bytes())[0] == planes


def test_golden_files_are_written_again_byte_for_byte(tmp_path):
    for path in GOLDEN.glob(f"*{KEPT}"):
        shutil.copy(path, tmp_path)
    write_golden(tmp_path)
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("mode", [RAW, STATIC])
def test_damaged_packets_are_refused(mode):
    tables, shape, planes = case("example")
    packet = encode(tables, shape, 0, 0, mode, list(planes.values()))
    assert decode(tables, shape, packet) == (planes, 1)
    for bit in range(8 * len(packet)):
        damaged = bytearray(packet)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            decode(tables, shape, bytes(damaged))
    for length in range(len(packet)):
        with pytest.raises(FormatError):
            decode(tables, shape, packet[:length])
