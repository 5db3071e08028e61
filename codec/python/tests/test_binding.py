"""The binding against the golden packets of the crate, and the errors that it raises."""

from pathlib import Path

import numpy as np
import pytest
from narrows_codec import CodecError, Tables, bits, decode, encode

GOLDEN = Path(__file__).resolve().parents[2] / "tests/golden"
CODED = ("static", "indexed", "context", "columns", "rows")
PACKETS = sorted(path for mode in (*CODED, "raw") for path in GOLDEN.glob(f"*.{mode}"))
FRAMES = sorted(path for ending in ("zstd", "compressed") for path in GOLDEN.glob(f"*.{ending}"))


def case(name: str) -> tuple[Tables, np.ndarray, dict]:
    """Tables, symbols i16 [C,H,W] and the encoder arguments of a golden case."""
    *sides, geometry, level, truncatable, lanes = (int(word) for word in (GOLDEN / f"{name}.shape").read_text().split())
    symbols = np.frombuffer((GOLDEN / f"{name}.symbols").read_bytes(), "<i2").reshape(sides)
    made = {"geometry": geometry, "level": level, "truncatable": truncatable == 1, "lanes": lanes}
    return Tables((GOLDEN / f"{name}.tables").read_bytes()), symbols, made


def small_symbols() -> tuple[Tables, np.ndarray, int]:
    """Tables, symbols and level of the first golden case whose symbols fit i8."""
    for path in PACKETS:
        tables, symbols, made = case(path.stem)
        if symbols.min() >= -128 and symbols.max() <= 127:
            return tables, symbols, made["level"]
    raise AssertionError("no golden case has symbols of one byte")


@pytest.mark.parametrize("path", PACKETS, ids=lambda path: path.name)
def test_packets_equal_the_golden_ones_and_decode(path):
    tables, symbols, made = case(path.stem)
    assert encode(tables, symbols, mode=path.suffix[1:], **made) == path.read_bytes()
    assert (decode(tables, path.read_bytes(), symbols.shape) == symbols).all()


@pytest.mark.parametrize("path", FRAMES, ids=lambda path: path.name)
def test_golden_zstd_packets_decode(path):
    tables, symbols, _ = case(path.stem)
    assert (decode(tables, path.read_bytes(), symbols.shape) == symbols).all()


def test_arrays_of_one_byte_and_of_any_strides_give_the_same_bytes():
    tables, symbols, level = small_symbols()
    packet = encode(tables, symbols, level=level)
    assert encode(tables, symbols.astype(np.int8), level=level) == packet
    assert encode(tables, np.asfortranarray(symbols), level=level) == packet
    back = decode(tables, packet, symbols.shape)
    assert back.dtype == np.int16 and back.shape == symbols.shape


@pytest.mark.parametrize("path", [path for path in PACKETS if path.suffix[1:] in CODED], ids=lambda path: path.name)
def test_bits_are_the_size_of_the_packet_less_its_overhead(path):
    tables, symbols, made = case(path.stem)
    cost = bits(tables, symbols, level=made["level"], mode=path.suffix[1:]) / 8
    rest = len(path.read_bytes()) - cost
    assert 0 <= rest < 20 + 4 * made["lanes"] + 0.03 * cost


def test_errors_are_exceptions_with_the_text_of_the_codec():
    tables, symbols, level = small_symbols()
    packet = encode(tables, symbols, level=level)
    with pytest.raises(CodecError, match="packet"):
        decode(tables, packet[:-1] + bytes([packet[-1] ^ 1]), symbols.shape)
    with pytest.raises(CodecError, match="level 200"):
        encode(tables, symbols, level=200)
    with pytest.raises(CodecError, match="lanes 3"):
        encode(tables, symbols, level=level, lanes=3)
    with pytest.raises(CodecError, match="mode"):
        encode(tables, symbols, mode="huffman")
    with pytest.raises(CodecError, match="float"):
        encode(tables, symbols.astype(np.float32))
    with pytest.raises(CodecError, match="tables"):
        Tables(b"NRWT")
    assert issubclass(CodecError, ValueError)


def test_damaged_packets_raise_and_do_not_panic():
    tables, symbols, level = small_symbols()
    packet = encode(tables, symbols, level=level)
    rng = np.random.default_rng(7)
    for _ in range(300):
        damaged = bytearray(packet)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        with pytest.raises(CodecError):
            decode(tables, bytes(damaged), symbols.shape)
