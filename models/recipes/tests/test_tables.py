"""Tables and packets against codec/FORMAT.md."""

import numpy as np
import pytest

from recipe import packet, tables
from recipe.tables import Table


@pytest.mark.parametrize("seed", range(20))
def test_quantised_frequencies_sum_to_4096_and_none_is_zero(seed):
    rng = np.random.default_rng(seed)
    share = rng.exponential(size=rng.integers(1, 256)) ** rng.integers(1, 9)
    freq = tables.quantise(share)
    assert freq.sum() == 4096
    assert freq.min() >= 1


def test_a_table_keeps_its_sum_when_one_symbol_has_everything():
    counts = np.zeros(256)
    counts[128] = 1e6
    table = tables.table(counts, np.full(256, 1 / 256))
    assert table.freq.sum() == 4096 and table.freq.min() >= 1


def test_tables_file_reads_back():
    rng = np.random.default_rng(1)
    made = [[tables.table(rng.integers(0, 99, 256), np.ones(256)) for _ in range(3)] for _ in range(2)]
    packed = tables.pack(made)
    assert tables.pack(tables.unpack(packed)) == packed


def test_worked_example_of_the_format():
    levels = [[Table(-1, np.array([1024, 2048, 1000, 24])), Table(0, np.array([4000, 96]))]]
    packed = tables.pack(levels)
    assert packet.table_id(packed).hex() == "a3edc98b"
    symbols = np.array([[[0, 0], [1, -1]], [[0, 0], [5, 0]]], np.int8)
    coded = packet.encode(levels, packet.table_id(packed), 0, 0, symbols)
    assert coded.hex() == "11000001a3edc98be6ead73d9876de050500"
    assert (packet.decode(levels, symbols.shape, coded) == symbols).all()


def test_packet_round_trip_with_escapes_and_four_lanes():
    rng = np.random.default_rng(2)
    symbols = np.clip(rng.laplace(0, 3, (4, 48, 48)).round(), -128, 127).astype(np.int8)
    levels = [[tables.table(row * (np.abs(np.arange(-128, 128)) < 9), np.ones(256)) for row in tables.histogram(symbols[None])]]
    coded = packet.encode(levels, b"abcd", 1, 0, symbols)
    assert coded[3] == 4
    assert (packet.decode(levels, symbols.shape, coded) == symbols).all()
    assert abs(len(coded) - packet.size(levels, 0, symbols)) < 30
