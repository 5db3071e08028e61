"""The door against the golden packets of the crate, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from narrows_codec import CodecError, Tables, bits, decode, encode

GOLDEN = Path(__file__).resolve().parents[2] / "tests/golden"
CODED = ("static", "indexed", "context")
PACKETS = sorted(path for mode in (*CODED, "raw") for path in GOLDEN.glob(f"*.{mode}"))


def case(name: str) -> tuple[Tables, np.ndarray, int, int]:
    """Tables, symbols i16 [C,H,W], geometry and level of a golden packet."""
    *sides, geometry, level = (int(word) for word in (GOLDEN / f"{name}.shape").read_text().split()[:5])
    symbols = np.frombuffer((GOLDEN / f"{name}.symbols").read_bytes(), "<i2").reshape(sides)
    return Tables((GOLDEN / f"{name}.tables").read_bytes()), symbols, geometry, level


def wide() -> tuple[Tables, np.ndarray, int]:
    """The first golden case whose symbols fit i8."""
    for path in PACKETS:
        tables, symbols, _, level = case(path.stem)
        if symbols.min() >= -128 and symbols.max() <= 127:
            return tables, symbols, level
    raise AssertionError("no golden case has symbols of one byte")


@pytest.mark.parametrize("path", PACKETS, ids=lambda path: path.name)
def test_packets_equal_the_golden_ones_and_decode(path):
    tables, symbols, geometry, level = case(path.stem)
    mode = path.suffix[1:]
    assert encode(tables, symbols, level=level, geometry=geometry, mode=mode) == path.read_bytes()
    assert (decode(tables, path.read_bytes(), symbols.shape) == symbols).all()


def test_arrays_of_one_byte_and_of_any_strides_give_the_same_bytes():
    tables, symbols, level = wide()
    packet = encode(tables, symbols, level=level)
    assert encode(tables, symbols.astype(np.int8), level=level) == packet
    assert encode(tables, np.asfortranarray(symbols), level=level) == packet
    back = decode(tables, packet, symbols.shape)
    assert back.dtype == np.int16 and back.shape == symbols.shape


@pytest.mark.parametrize("path", [path for path in PACKETS if path.suffix[1:] in CODED], ids=lambda path: path.name)
def test_bits_are_what_the_packet_takes_within_its_overhead(path):
    tables, symbols, _, level = case(path.stem)
    cost = bits(tables, symbols, level=level, mode=path.suffix[1:]) / 8
    assert 0 <= len(path.read_bytes()) - cost < 40 + 0.02 * cost


def test_errors_are_exceptions_with_the_text_of_the_codec():
    tables, symbols, level = wide()
    packet = encode(tables, symbols, level=level)
    with pytest.raises(CodecError, match="packet"):
        decode(tables, packet[:-1] + bytes([packet[-1] ^ 1]), symbols.shape)
    with pytest.raises(CodecError, match="level 200"):
        encode(tables, symbols, level=200)
    with pytest.raises(CodecError, match="mode"):
        encode(tables, symbols, mode="huffman")
    with pytest.raises(CodecError, match="float"):
        encode(tables, symbols.astype(np.float32))
    with pytest.raises(CodecError, match="tables"):
        Tables(b"NRWT")
    assert issubclass(CodecError, ValueError)


def test_no_bytes_make_it_panic():
    tables, symbols, level = wide()
    packet = encode(tables, symbols, level=level)
    rng = np.random.default_rng(7)
    for _ in range(300):
        damaged = bytearray(packet)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        with pytest.raises(CodecError):
            decode(tables, bytes(damaged), symbols.shape)
