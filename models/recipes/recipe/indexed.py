"""The tables of mode indexed, which a packet chooses for each tile of a channel (codec/FORMAT.md, sections 2.3 and 5.2).

Training tiles are clustered by code length, as in k-means: every tile is assigned to the table that codes it in the fewest
bits, and every table is counted on its tiles.
"""

from __future__ import annotations

import numpy as np

from .tables import Indexed, Table, quantise, table

ROUNDS = 12
TILES = 40_000  # on which the tables are fitted
REACH = 64  # symbols are clamped to -REACH..REACH
SMOOTHING = 2.0  # symbols of the mean distribution that are added to the counts of every cluster
INDEX_BITS = 2.0  # approximate cost of a changed index: another table than the previous tile's must save more


def tiles(symbols: np.ndarray, tile: int) -> np.ndarray:
    """Histograms i64 [N,C,rows,columns,2 REACH + 1] of the tiles of symbols i8 [N,C,h,w]; `tile` 0: a tile is a channel."""
    n, c, height, width = symbols.shape
    side = tile or max(height, width)
    rows, columns = -(-height // side), -(-width // side)
    place = (np.arange(height) // side)[:, None] * columns + np.arange(width) // side
    flat = np.clip(symbols.astype(np.int64), -REACH, REACH) + REACH
    kind = (np.arange(n * c) * rows * columns).reshape(n, c, 1, 1) + place
    size = 2 * REACH + 1
    found = np.bincount((kind * size + flat).reshape(-1), minlength=n * c * rows * columns * size)
    return found.reshape(n, c, rows, columns, size)


def clusters(counts: np.ndarray, tables: int) -> np.ndarray:
    """Counts f64 [tables, values] of each cluster of tile histograms, ordered by signed standard deviation."""
    total = counts.sum(0) / counts.sum()
    centre = counts @ np.arange(-REACH, REACH + 1) / counts.sum(1)
    deviation = np.sqrt(counts @ np.arange(-REACH, REACH + 1) ** 2 / counts.sum(1) + 1e-3)
    # The initial clusters are runs of tiles with similar standard deviation and mean.
    start = np.lexsort((centre, np.digitize(deviation, np.quantile(deviation, np.linspace(0, 1, tables // 2 + 1)[1:-1]))))
    sums = np.stack([counts[part].sum(0) for part in np.array_split(start, tables)]).astype(np.float64)
    for _ in range(ROUNDS):
        share = sums + SMOOTHING * total
        cost = counts @ -np.log2(share / share.sum(1, keepdims=True) + 1e-9).T
        chosen = cost.argmin(1)
        sums = np.stack([counts[chosen == k].sum(0) for k in range(tables)]).astype(np.float64)
    values = np.arange(-REACH, REACH + 1)
    weight = np.maximum(sums.sum(1), 1)
    key = np.sqrt(sums @ values**2 / weight) * np.sign(sums @ values / weight + 1e-9)
    return sums[np.argsort(key)]


def fit(symbols: list[np.ndarray], tile: int, count: int, precision: int) -> Indexed:
    """The section of mode indexed from training symbols i8 [N,C,h,w] of each level; `count` tables."""
    per_level = max(1, TILES // len(symbols))
    counted = [tiles(level[: max(1, len(level) // 4)], tile) for level in symbols]
    chosen_tiles = []
    rng = np.random.default_rng(0)
    for level in counted:
        rows = level.reshape(-1, level.shape[-1])
        chosen_tiles.append(rows[rng.permutation(len(rows))[:per_level]])
    pooled = np.concatenate(chosen_tiles).astype(np.float32)
    sums = clusters(pooled, count)
    made = [table(row, pooled.sum(0), -REACH, precision) for row in sums]
    costs = np.stack([t.cost(-REACH, 2 * REACH + 1) for t in made])
    bases, deltas = [], []
    for level in counted:
        chosen = choose(level, costs)
        bases.append([int(np.bincount(channel[:, 0, 0], minlength=count).argmax()) for channel in np.moveaxis(chosen, 1, 0)])
        steps = (chosen - predicted(chosen, bases[-1])) % count
        deltas.append(full_table(np.bincount(steps.reshape(-1), minlength=count), precision))
    return Indexed(tile, made, bases, deltas)


def choose(counts: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Table index i64 [N,C,rows,columns] of each tile: the previous tile's unless another saves more than INDEX_BITS."""
    bits = counts @ costs.T
    best = bits.argmin(-1)
    for column in range(1, best.shape[-1]):
        before = best[..., column - 1]
        stay = np.take_along_axis(bits[..., column, :], before[..., None], -1)[..., 0]
        keep = stay - INDEX_BITS <= bits[..., column, :].min(-1)
        best[..., column] = np.where(keep, before, best[..., column])
    return best


def predicted(index: np.ndarray, bases: list[int]) -> np.ndarray:
    """The prediction of each index: the one to the left, in the first column the one above, for the first tile the base."""
    out = np.empty_like(index)
    out[..., 1:] = index[..., :-1]
    out[..., 1:, 0] = index[..., :-1, 0]
    out[..., 0, 0] = np.array(bases)
    return out


def full_table(counts: np.ndarray, precision: int) -> Table:
    """A table that holds every value from 0 to len(counts) - 1, counted or not."""
    share = counts + max(counts.sum(), 1) / 256 / len(counts)
    return Table(0, quantise(np.append(share, 0.0), 1 << precision))
