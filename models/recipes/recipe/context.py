"""The context model (codec/FORMAT.md, sections 2.4 and 5.3), fitted on training symbols.

A linear predictor estimates the mean of each symbol in quarter symbols; where all neighbours are equal, the mean is theirs.
A second one estimates the magnitude of the residual from the magnitudes of neighbours and of earlier channels. One set of
tables, indexed by expected magnitude and by the fraction of the mean, serves all channels and levels.
"""

from __future__ import annotations

import numpy as np

from .tables import Context, Level, Table, Tap, table

NEIGHBOURS = (((-1, 0), (-1, -1), (-1, 1), (-2, 0)), ((0, -1), (0, 1), (-1, 0), (-1, -1), (-1, 1)))
OFFSETS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
TAPS = 4  # positions in earlier channels that a mean uses
CAP = 15  # largest magnitude, in quarter symbols
DECAY = 2  # the plane A decreases by 2^-DECAY of its value with each channel
SHAPES = 16  # table shapes, i.e. classes of expected magnitude
CELLS = 96  # finer classes of expected magnitude, which are merged to shapes
REACH = 200  # largest value that a table holds
FIT_ITEMS = 96  # crops that weights are fitted on
WEIGHT_LIMIT = 2500  # largest weight: the 13 of a mean then stay within the sum that the format allows


def shifted(plane: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """The plane shifted so that result[..., y, x] = plane[..., y + dy, x + dx], with 0 outside."""
    out = np.zeros_like(plane)
    height, width = plane.shape[-2:]
    y, x = slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx))
    out[..., max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)] = plane[..., y, x]
    return out


def columns(planes: list[np.ndarray], phase: int) -> np.ndarray:
    """The values of planes [N,h,w] at the columns of a phase, as the columns of a matrix f64 [N*h*w/2, planes]."""
    return np.stack([plane[..., phase::2].reshape(-1) for plane in planes], 1).astype(np.float64)


def neighbours(plane: np.ndarray, phase: int) -> list[np.ndarray]:
    """The own neighbours of every position, in the format's order."""
    return [shifted(plane, dy, dx) for dy, dx in NEIGHBOURS[phase]]


def tap_values(symbols: np.ndarray, taps: list[Tap]) -> list[np.ndarray]:
    """The symbols [N,h,w] at the taps of every position."""
    return [shifted(symbols[:, tap.plane], tap.dy, tap.dx) for tap in taps]


def solve(inputs: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares with a constant term: weights and constant."""
    x = np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
    square = x.T @ x
    square[np.diag_indices(len(square))] += 1e-6 * np.trace(square) / len(square)
    found = np.linalg.solve(square, x.T @ target)
    return found[:-1], float(found[-1])


def choose_taps(symbols: np.ndarray, channel: int, earlier: list[int], phase: int) -> list[Tap]:
    """Greedy choice of the positions in earlier channels that most improve the prediction from the neighbours; weights 0."""
    near = neighbours(symbols[:, channel], phase)
    candidates = [Tap(plane, dy, dx, 0) for plane in earlier for dy, dx in OFFSETS]
    x = columns(near + tap_values(symbols, candidates), phase).astype(np.float32)
    y = columns([symbols[:, channel]], phase)[:, 0].astype(np.float32)
    x, y = x - x.mean(0), y - y.mean()
    square, cross = (x.T @ x).astype(np.float64), (x.T @ y).astype(np.float64)
    square[np.diag_indices(len(square))] += 1e-6 * max(np.trace(square) / len(square), 1.0)
    selected = list(range(len(near)))
    for _ in range(min(TAPS, len(candidates))):
        residual = cross - square[:, selected] @ np.linalg.solve(square[np.ix_(selected, selected)], cross[selected])
        gain = residual**2 / np.diag(square)
        gain[selected] = -1
        selected.append(int(np.argmax(gain)))
    return [candidates[i - len(near)] for i in selected[len(near) :]]


def fit_means(symbols: np.ndarray, order: list[int]) -> list[list[tuple[list[int], list[Tap]]]]:
    """Weights of the neighbours, and taps, of every channel and phase, in 1/1024 symbol."""
    found = [[([], [])] * 2 for _ in order]
    for position, channel in enumerate(order):
        row = []
        for phase in (0, 1):
            taps = choose_taps(symbols[: FIT_ITEMS // 2], channel, order[:position], phase)
            inputs = columns(neighbours(symbols[:, channel], phase) + tap_values(symbols, taps), phase)
            weights, _ = solve(inputs, columns([symbols[:, channel]], phase)[:, 0])
            integers = np.clip(np.rint(weights * 1024), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(int).tolist()
            near = len(NEIGHBOURS[phase])
            row.append((integers[:near], [Tap(t.plane, t.dy, t.dx, w) for t, w in zip(taps, integers[near:], strict=True)]))
        found[channel] = row
    return found


def weighted_sums(symbols: np.ndarray, channel: int, phase: int, mean: tuple[list[int], list[Tap]]) -> np.ndarray:
    """Weighted sums i64 of a channel's positions of one phase, without the bias."""
    weights, taps = mean
    inputs = columns(neighbours(symbols[:, channel], phase) + tap_values(symbols, taps), phase)
    return (inputs @ np.array([*weights, *(tap.weight for tap in taps)], np.float64)).astype(np.int64)


def mean_biases(symbols: np.ndarray, means: list) -> np.ndarray:
    """Biases [C,2] in the range of i16 that make the mean error of the predictor 0 on these symbols, rounding included."""
    found = np.zeros((symbols.shape[1], 2), np.int64)
    for channel, phases in enumerate(means):
        for phase, mean in enumerate(phases):
            target = 1024 * columns([symbols[:, channel]], phase)[:, 0]
            found[channel, phase] = round(float((target - weighted_sums(symbols, channel, phase, mean)).mean() + 128) / 16)
    return np.clip(found, -32768, 32767)


def quarter_means(symbols: np.ndarray, means: list, biases: np.ndarray) -> np.ndarray:
    """Predicted means mq i64 of symbols [N,C,h,w], in quarter symbols."""
    out = np.zeros(symbols.shape, np.int64)
    for channel, phases in enumerate(means):
        for phase, mean in enumerate(phases):
            part = out[:, channel, :, phase::2]
            part[:] = ((weighted_sums(symbols, channel, phase, mean) + 16 * biases[channel, phase]) >> 8).reshape(part.shape)
            near = np.stack(neighbours(symbols[:, channel], phase))[..., phase::2]
            np.copyto(part, 4 * near[0], where=(near == near[0]).all(0))
    return out


def blur(plane: np.ndarray) -> np.ndarray:
    """The plane B of a plane A: a separable 1-2-1 filter."""
    across = 2 * plane + shifted(plane, 0, 1) + shifted(plane, 0, -1)
    return (2 * across + shifted(across, 1, 0) + shifted(across, -1, 0)) >> 4


def magnitudes(
    symbols: np.ndarray, mq: np.ndarray, order: list[int], cap: int, coarse: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Magnitudes m and the planes A and B of each channel, i64 [N,C,h,w]."""
    m = np.minimum(np.abs(4 * symbols - mq) >> coarse, cap)
    far, wide = np.zeros_like(m), np.zeros_like(m)
    running = np.zeros_like(m[:, 0])
    for channel in order:
        far[:, channel], wide[:, channel] = running, blur(running)
        running = running - (running >> DECAY) + 8 * m[:, channel]
    return m, far, wide


def activity_inputs(planes: tuple[np.ndarray, np.ndarray, np.ndarray], channel: int, phase: int) -> np.ndarray:
    """Inputs of the magnitude predictor at the positions of a phase."""
    m, far, wide = planes
    return columns([*neighbours(m[:, channel], phase), far[:, channel], wide[:, channel]], phase)


def fit_activity(planes: tuple[np.ndarray, np.ndarray, np.ndarray], shift: int) -> list[list[list[int]]]:
    """Weights of the magnitude predictor of every channel and phase."""
    weights = []
    for channel in range(planes[0].shape[1]):
        row = []
        for phase in (0, 1):
            found, _ = solve(activity_inputs(planes, channel, phase), columns([planes[0][:, channel]], phase)[:, 0])
            row.append(np.clip(np.rint(found * 2 ** (shift + 8)), -32768, 32767).astype(int).tolist())
        weights.append(row)
    return weights


def activity_biases(planes: tuple[np.ndarray, np.ndarray, np.ndarray], weights: list, shift: int) -> np.ndarray:
    """Biases [C,2] in the range of i16 that make the mean error of the magnitude predictor 0."""
    found = np.zeros((len(weights), 2), np.int64)
    for channel, phases in enumerate(weights):
        for phase, w in enumerate(phases):
            target = columns([planes[0][:, channel]], phase)[:, 0]
            rest = target - activity_inputs(planes, channel, phase) @ np.array(w, np.float64) / 2 ** (shift + 8)
            found[channel, phase] = round(float(rest.mean()) * 2**12)
    return np.clip(found, -32768, 32767)


def expected_magnitudes(planes: tuple[np.ndarray, np.ndarray, np.ndarray], weights: list, biases: np.ndarray, shift: int) -> np.ndarray:
    """Expected magnitude e i64 of every symbol."""
    out = np.zeros(planes[0].shape, np.int64)
    for channel, phases in enumerate(weights):
        for phase, w in enumerate(phases):
            part = out[:, channel, :, phase::2]
            total = (activity_inputs(planes, channel, phase) @ np.array(w, np.float64)).astype(np.int64) + (
                int(biases[channel, phase]) << (shift - 4)
            )
            part[:] = np.maximum(total >> shift, 0).reshape(part.shape)
    return out


def cells(limit: int = 4095) -> np.ndarray:
    """Ascending thresholds of the finer classes, dense where magnitudes are small."""
    return np.unique(np.rint(np.geomspace(2, limit, CELLS)).astype(np.int64))


def count(values: np.ndarray, mq: np.ndarray, e: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts f64 [cells, 4, 2 REACH + 1] of coded values by class of expected magnitude and by fraction of the mean."""
    size = 2 * REACH + 1
    index = 4 * np.searchsorted(edges, e, side="right") + (mq & 3)
    flat = np.clip(values, -REACH, REACH) + REACH + size * index
    return np.bincount(flat.reshape(-1), minlength=4 * (len(edges) + 1) * size).reshape(-1, 4, size).astype(np.float64)


def merge_cells(counts: np.ndarray, shapes: int) -> list[int]:
    """Positions that divide the cells into `shapes` runs whose tables code the counts in the fewest bits (dynamic programming)."""
    n = len(counts)
    before = np.concatenate([np.zeros((1, *counts.shape[1:])), np.cumsum(counts, 0)])
    cost = np.full((n + 1, n + 1), np.inf)
    for first in range(n):
        runs = before[first + 1 :] - before[first]
        cost[first, first + 1 :] = plogp(runs.sum(-1)).sum(1) - plogp(runs).sum((1, 2))
    best, steps = cost[0], []
    for _ in range(min(shapes, n) - 1):
        through = best[:, None] + cost
        steps.append(through.argmin(0))
        best = through.min(0)
    cuts, at = [], n
    for step in reversed(steps):
        at = int(step[at])
        cuts.append(at)
    return cuts[::-1]


def plogp(x: np.ndarray) -> np.ndarray:
    """x log2 x, and 0 for 0."""
    return x * np.log2(np.maximum(x, 1))


def shape_tables(counts: np.ndarray, precision: int) -> list[Table]:
    """The four tables of one shape from counts [4, values], each smoothed by the sum of all four."""
    return [table(part, counts.sum(0) + 1e-9, -REACH, precision) for part in counts]


def fit(symbols: list[np.ndarray], order: list[int], default: int, precision: int) -> Context:
    """The context model of training symbols i8 [N,C,h,w] of each level, coded in `order`.

    The weights of means are fitted at the default level and used at all levels. Magnitudes have two sets of weights: one for
    the levels up to the default and one for coarser levels.
    """
    shift = 8
    means = fit_means(symbols[default][:FIT_ITEMS].astype(np.int64), order)
    centres, planes = [], []
    for level in symbols:
        items = level[:FIT_ITEMS].astype(np.int64)
        centres.append(mean_biases(items, means))
        planes.append(magnitudes(items, quarter_means(items, means, centres[-1]), order, CAP))
    sets = [part for part in (range(default + 1), range(default + 1, len(symbols))) if len(part)]
    activities, levels = [], []
    for index, part in enumerate(sets):
        share = -(-FIT_ITEMS // len(part))
        pooled = tuple(np.concatenate([planes[level][i][:share] for level in part]) for i in range(3))
        activities.append(fit_activity(pooled, shift))
        for level in part:
            bias = activity_biases(planes[level], activities[index], shift)
            levels.append(Level(0, index, 0, np.stack([centres[level], bias], 2).astype(np.int16)))
    edges = cells()
    total = sum(
        count(*predict(means, activities[level.activity], level, order, CAP, shift, part.astype(np.int64)), edges)
        for level, crops in zip(levels, symbols, strict=True)
        for part in np.array_split(crops, max(1, len(crops) // FIT_ITEMS))
    )
    cuts = merge_cells(total, SHAPES)
    shapes = [shape_tables(run.sum(0), precision) for run in np.split(total, cuts)]
    return Context(CAP, shift, edges[np.array(cuts) - 1].tolist(), shapes, [means], activities, levels)


def predict(
    means: list, weights: list, level: Level, order: list[int], cap: int, shift: int, symbols: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Coded values, means in quarter symbols and expected magnitudes of symbols [N,C,h,w], i64 each."""
    biases = level.biases.astype(np.int64)
    mq = quarter_means(symbols, means, biases[..., 0])
    planes = magnitudes(symbols, mq, order, cap, level.coarse)
    return symbols - (mq >> 2), mq, expected_magnitudes(planes, weights, biases[..., 1], shift)


def table_indices(context: Context, order: list[int], level: int, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coded values, and table indices 4 * shape + fraction, i64 [N,C,h,w] each, of symbols [N,C,h,w]."""
    at = context.levels[level]
    means, weights = context.means[at.mean], context.activities[at.activity]
    values, mq, e = predict(means, weights, at, order, context.cap, context.shift, symbols)
    return values, 4 * np.searchsorted(context.thresholds, e, side="right") + (mq & 3)


def bits(context: Context, order: list[int], level: int, symbols: np.ndarray) -> float:
    """Ideal code length in bits of one feature's symbols i8 [C,h,w]."""
    values, index = table_indices(context, order, level, symbols[None].astype(np.int64))
    low, high = int(values.min()), int(values.max())
    costs = np.stack([t.cost(low, high - low + 1) for shape in context.shapes for t in shape])
    return float(costs[index, values - low].sum())
