"""Tables and packets against codec/FORMAT.md."""

import narrows_reference as codec
import numpy as np
import pytest

from recipe import channel_order, context, indexed, packet, tables
from recipe.tables import Table, Tables


@pytest.mark.parametrize("seed", range(20))
def test_quantised_frequencies_sum_to_the_total_and_none_is_zero(seed):
    rng = np.random.default_rng(seed)
    share = rng.exponential(size=rng.integers(1, 256)) ** rng.integers(1, 9)
    for total in (4096, 16384):
        freq = tables.quantise(share, total)
        assert freq.sum() == total
        assert freq.min() >= 1


def test_a_table_keeps_its_sum_when_one_symbol_has_everything():
    counts = np.zeros(256)
    counts[128] = 1e6
    table = tables.table(counts, np.full(256, 1 / 256))
    assert table.freq.sum() == 4096 and table.freq.min() >= 1


def test_costs_are_bits_and_an_escape_takes_sixteen_more():
    table = Table(-1, np.array([1024, 2048, 1000, 24]))
    cost = table.cost(-2, 4)
    assert cost[1] == 2 and cost[2] == 1
    assert cost[0] == pytest.approx(16 + np.log2(4096 / 24))
    assert table.median == 0


def test_symbols_that_spread_widely_get_fourteen_bits():
    rng = np.random.default_rng(4)
    wide = rng.integers(-100, 100, (32, 2, 16, 16)).astype(np.int8)
    assert tables.static([wide], [np.ones((2, 256))])[0] == 14
    assert tables.static([wide // 20], [np.ones((2, 256))])[0] == 12


def smooth(count: int, seed: int) -> np.ndarray:
    """Features i8 [N,4,16,16] with a smooth mean in the first channel and an activity that all share."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:16, 0:16] / 16
    phase = rng.uniform(0, 6, (count, 3, 1, 1))
    activity = np.exp(1.5 * np.sin(6 * y + phase[:, 0]) * np.cos(6 * x + phase[:, 1]))
    scales = np.array([2.0, 1.5, 1.0, 0.4])[:, None, None]
    symbols = rng.laplace(0, 1, (count, 4, 16, 16)) * scales * activity[:, None]
    symbols[:, 0] += 20 * np.sin(3 * x + phase[:, 2])
    return np.clip(np.rint(symbols), -128, 127).astype(np.int8)


@pytest.fixture(scope="module")
def made() -> Tables:
    levels = [smooth(48, 1), smooth(48, 1) // 2]
    precision, static = tables.static(levels, [np.ones((4, 256))] * 2)
    order = [0, 2, 1, 3]
    side = indexed.fit(levels, 8, 8, precision)
    near = context.fit(levels, order, 0, precision)
    return Tables(static, precision, order, [1, 3], side, near)


def test_tables_file_reads_back(made):
    packed = made.pack()
    assert tables.unpack(packed).pack() == packed
    assert len(packed) < 8192


def test_contexts_save_bits_where_neighbours_are_informative(made):
    unseen = smooth(8, 2)
    static = sum(t.bits(row) for t, row in zip(made.static[0], tables.histogram(unseen), strict=True))
    assert sum(context.bits(made.context, made.order, 0, feature) for feature in unseen) < 0.9 * static


def test_every_mode_of_the_reference_reads_what_was_fitted(made):
    packed, feature = made.pack(), smooth(1, 3)[0]
    read = codec.Tables(packed)
    for mode in (codec.STATIC, codec.INDEXED, codec.CONTEXT):
        coded = codec.encode(read, feature.shape, 0, 1, mode, feature.tolist(), truncatable=True)
        assert (packet.decode(packed, feature.shape, coded) == feature).all()


def test_the_estimate_of_a_packet_is_near_its_size(made):
    packed, feature = made.pack(), smooth(1, 5)[0]
    coded = codec.encode(codec.Tables(packed), feature.shape, 0, 0, codec.CONTEXT, feature.tolist())
    assert abs(len(coded) - packet.expected_bytes(made, 0, feature)) < 12


def test_values_and_table_indices_are_those_of_the_reference(made):
    feature = smooth(1, 6)[0]
    values, indices = context.table_indices(made.context, made.order, 0, feature[None].astype(np.int64))
    costs = np.stack([t.cost(-300, 601) for shape in made.context.shapes for t in shape])
    mine = costs[indices, values + 300].sum() / 8
    coded = codec.encode(codec.Tables(made.pack()), feature.shape, 0, 0, codec.CONTEXT, feature.tolist())
    assert 0 < len(coded) - mine < 20


def test_groups_minimise_the_loss_of_truncation():
    # Only the first channel reduces the divergence, so a group must end behind it.
    assert channel_order.group_sizes([10.0, 10.0, 10.0, 10.0], [4.0, 0.1, 0.1, 0.1, 0.0], 2) == [1, 3]
    assert sum(channel_order.group_sizes([1.0] * 7, list(range(8))[::-1], 3)) == 7
