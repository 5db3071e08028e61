"""Tables chosen by what is already decoded (codec/FORMAT.md, sections 2.4 and 5.3), fitted on training symbols.

A linear predictor gives each symbol's mean in quarter symbols, or its neighbours where they are all equal; another gives the magnitude of what is left, from that
of neighbours and of earlier channels. One family of tables, by magnitude and by quarter, serves all channels and levels.
"""

from __future__ import annotations

import numpy as np

from .tables import Context, Level, Table, Tap, table

OWN = (((-1, 0), (-1, -1), (-1, 1), (-2, 0)), ((0, -1), (0, 1), (-1, 0), (-1, -1), (-1, 1)))
PLACES = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
TAPS = 4
CAP = 15  # of a magnitude, in quarter symbols
FADE = 2  # A loses 2^-FADE of itself with each channel
SHAPES = 16
CELLS = 96  # steps of expected magnitude before they are joined to shapes
SPREAD = 200  # largest value that a table of the family may hold
FIT_ITEMS = 96  # crops that weights are fitted on
WEIGHT_LIMIT = 2500  # 13 of them stay within the sum that the format allows


def shifted(plane: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """[..., y, x] of the result is [..., y + dy, x + dx], 0 outside."""
    out = np.zeros_like(plane)
    height, width = plane.shape[-2:]
    y, x = slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx))
    out[..., max(0, -dy) : height - max(0, dy), max(0, -dx) : width - max(0, dx)] = plane[..., y, x]
    return out


def columns(planes: list[np.ndarray], phase: int) -> np.ndarray:
    """Planes [N,h,w] at the columns of a phase, side by side: f64 [N*h*w/2, planes], integers all."""
    return np.stack([plane[..., phase::2].reshape(-1) for plane in planes], 1).astype(np.float64)


def own(plane: np.ndarray, phase: int) -> list[np.ndarray]:
    return [shifted(plane, dy, dx) for dy, dx in OWN[phase]]


def tapped(symbols: np.ndarray, taps: list[Tap]) -> list[np.ndarray]:
    return [shifted(symbols[:, tap.plane], tap.dy, tap.dx) for tap in taps]


def solve(inputs: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Least squares with a constant: weights and the constant."""
    x = np.concatenate([inputs, np.ones((len(inputs), 1))], 1)
    square = x.T @ x
    square[np.diag_indices(len(square))] += 1e-6 * np.trace(square) / len(square)
    found = np.linalg.solve(square, x.T @ target)
    return found[:-1], float(found[-1])


def choose_taps(symbols: np.ndarray, channel: int, earlier: list[int], phase: int) -> list[Tap]:
    """The places in earlier channels that add most to the own neighbours, one after the other (weights still 0)."""
    near = own(symbols[:, channel], phase)
    offered = [Tap(plane, dy, dx, 0) for plane in earlier for dy, dx in PLACES]
    x = columns(near + tapped(symbols, offered), phase).astype(np.float32)
    y = columns([symbols[:, channel]], phase)[:, 0].astype(np.float32)
    x, y = x - x.mean(0), y - y.mean()
    square, cross = (x.T @ x).astype(np.float64), (x.T @ y).astype(np.float64)
    square[np.diag_indices(len(square))] += 1e-6 * max(np.trace(square) / len(square), 1.0)
    taken = list(range(len(near)))
    for _ in range(min(TAPS, len(offered))):
        left = cross - square[:, taken] @ np.linalg.solve(square[np.ix_(taken, taken)], cross[taken])
        gain = left**2 / np.diag(square)
        gain[taken] = -1
        taken.append(int(np.argmax(gain)))
    return [offered[i - len(near)] for i in taken[len(near) :]]


def fit_means(symbols: np.ndarray, order: list[int]) -> list[list[tuple[list[int], list[Tap]]]]:
    """Own weights and taps of every channel and phase, in 1/1024 symbol."""
    found = [[([], [])] * 2 for _ in order]
    for position, channel in enumerate(order):
        row = []
        for phase in (0, 1):
            taps = choose_taps(symbols[: FIT_ITEMS // 2], channel, order[:position], phase)
            inputs = columns(own(symbols[:, channel], phase) + tapped(symbols, taps), phase)
            weights, _ = solve(inputs, columns([symbols[:, channel]], phase)[:, 0])
            whole = np.clip(np.rint(weights * 1024), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(int).tolist()
            near = len(OWN[phase])
            row.append((whole[:near], [Tap(t.plane, t.dy, t.dx, w) for t, w in zip(taps, whole[near:], strict=True)]))
        found[channel] = row
    return found


def sums(symbols: np.ndarray, channel: int, phase: int, mean: tuple[list[int], list[Tap]]) -> np.ndarray:
    weights, taps = mean
    inputs = columns(own(symbols[:, channel], phase) + tapped(symbols, taps), phase)
    return (inputs @ np.array([*weights, *(tap.weight for tap in taps)], np.float64)).astype(np.int64)


def mean_biases(symbols: np.ndarray, means: list) -> np.ndarray:
    """i16 [C,2] that centre the predictor on these symbols, rounding included."""
    found = np.zeros((symbols.shape[1], 2), np.int64)
    for channel, phases in enumerate(means):
        for phase, mean in enumerate(phases):
            target = 1024 * columns([symbols[:, channel]], phase)[:, 0]
            found[channel, phase] = round(float((target - sums(symbols, channel, phase, mean)).mean() + 128) / 16)
    return np.clip(found, -32768, 32767)


def quarter_means(symbols: np.ndarray, means: list, biases: np.ndarray) -> np.ndarray:
    """mq i64 of symbols [N,C,h,w]."""
    out = np.zeros(symbols.shape, np.int64)
    for channel, phases in enumerate(means):
        for phase, mean in enumerate(phases):
            part = out[:, channel, :, phase::2]
            part[:] = ((sums(symbols, channel, phase, mean) + 16 * biases[channel, phase]) >> 8).reshape(part.shape)
            near = np.stack(own(symbols[:, channel], phase))[..., phase::2]
            np.copyto(part, 4 * near[0], where=(near == near[0]).all(0))
    return out


def blurred(plane: np.ndarray) -> np.ndarray:
    across = 2 * plane + shifted(plane, 0, 1) + shifted(plane, 0, -1)
    return (2 * across + shifted(across, 1, 0) + shifted(across, -1, 0)) >> 4


def magnitudes(
    symbols: np.ndarray, mq: np.ndarray, order: list[int], cap: int, coarse: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m, A and B of each channel, i64 [N,C,h,w]."""
    m = np.minimum(np.abs(4 * symbols - mq) >> coarse, cap)
    far, wide = np.zeros_like(m), np.zeros_like(m)
    sum_ = np.zeros_like(m[:, 0])
    for channel in order:
        far[:, channel], wide[:, channel] = sum_, blurred(sum_)
        sum_ = sum_ - (sum_ >> FADE) + 8 * m[:, channel]
    return m, far, wide


def seen(planes: tuple[np.ndarray, np.ndarray, np.ndarray], channel: int, phase: int) -> np.ndarray:
    m, far, wide = planes
    return columns([*own(m[:, channel], phase), far[:, channel], wide[:, channel]], phase)


def fit_activity(planes: tuple[np.ndarray, np.ndarray, np.ndarray], shift: int) -> list[list[list[int]]]:
    """Weights of every channel and phase, for magnitudes in 1/1024 symbol."""
    weights = []
    for channel in range(planes[0].shape[1]):
        row = []
        for phase in (0, 1):
            found, _ = solve(seen(planes, channel, phase), columns([planes[0][:, channel]], phase)[:, 0])
            row.append(np.clip(np.rint(found * 2 ** (shift + 8)), -32768, 32767).astype(int).tolist())
        weights.append(row)
    return weights


def activity_biases(planes: tuple[np.ndarray, np.ndarray, np.ndarray], weights: list, shift: int) -> np.ndarray:
    """i16 [C,2] that centre the predictor of magnitudes on these."""
    found = np.zeros((len(weights), 2), np.int64)
    for channel, phases in enumerate(weights):
        for phase, w in enumerate(phases):
            target = columns([planes[0][:, channel]], phase)[:, 0]
            rest = target - seen(planes, channel, phase) @ np.array(w, np.float64) / 2 ** (shift + 8)
            found[channel, phase] = round(float(rest.mean()) * 2**12)
    return np.clip(found, -32768, 32767)


def expected(planes: tuple[np.ndarray, np.ndarray, np.ndarray], weights: list, biases: np.ndarray, shift: int) -> np.ndarray:
    """e i64 of every symbol."""
    out = np.zeros(planes[0].shape, np.int64)
    for channel, phases in enumerate(weights):
        for phase, w in enumerate(phases):
            part = out[:, channel, :, phase::2]
            total = (seen(planes, channel, phase) @ np.array(w, np.float64)).astype(np.int64) + (int(biases[channel, phase]) << (shift - 4))
            part[:] = np.maximum(total >> shift, 0).reshape(part.shape)
    return out


def cells(limit: int = 4095) -> np.ndarray:
    """Ascending thresholds, dense where magnitudes are small."""
    return np.unique(np.rint(np.geomspace(2, limit, CELLS)).astype(np.int64))


def count(values: np.ndarray, mq: np.ndarray, e: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Counts f64 [cells, 4, 2 SPREAD + 1] of values by expected magnitude and fraction."""
    size = 2 * SPREAD + 1
    kind = 4 * np.searchsorted(edges, e, side="right") + (mq & 3)
    flat = np.clip(values, -SPREAD, SPREAD) + SPREAD + size * kind
    return np.bincount(flat.reshape(-1), minlength=4 * (len(edges) + 1) * size).reshape(-1, 4, size).astype(np.float64)


def join(counts: np.ndarray, shapes: int) -> list[int]:
    """Where to cut the cells into `shapes` runs so that their tables code the counts in the fewest bits."""
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
    return x * np.log2(np.maximum(x, 1))


def family(counts: np.ndarray, precision: int) -> list[Table]:
    """The four tables of one shape from counts [4, values]; each leans on the sum of all."""
    return [table(part, counts.sum(0) + 1e-9, -SPREAD, precision) for part in counts]


def fit(symbols: list[np.ndarray], order: list[int], default: int, precision: int) -> Context:
    """From training symbols i8 [N,C,h,w] of each level.

    Means are fitted at the default level and serve all. Magnitudes have two sets of weights: one for the levels up to
    the default, one for those coarser.
    """
    shift = 8
    means = fit_means(symbols[default][:FIT_ITEMS].astype(np.int64), order)
    centres, planes = [], []
    for level in symbols:
        some = level[:FIT_ITEMS].astype(np.int64)
        centres.append(mean_biases(some, means))
        planes.append(magnitudes(some, quarter_means(some, means, centres[-1]), order, CAP))
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
        count(*described(means, activities[level.activity], level, order, CAP, shift, part.astype(np.int64)), edges)
        for level, crops in zip(levels, symbols, strict=True)
        for part in np.array_split(crops, max(1, len(crops) // FIT_ITEMS))
    )
    cuts = join(total, SHAPES)
    shapes = [family(run.sum(0), precision) for run in np.split(total, cuts)]
    return Context(CAP, shift, edges[np.array(cuts) - 1].tolist(), shapes, [means], activities, levels)


def described(
    means: list, weights: list, level: Level, order: list[int], cap: int, shift: int, symbols: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Values, quarter means and expected magnitudes of symbols [N,C,h,w], i64 each."""
    biases = level.biases.astype(np.int64)
    mq = quarter_means(symbols, means, biases[..., 0])
    planes = magnitudes(symbols, mq, order, cap, level.coarse)
    return symbols - (mq >> 2), mq, expected(planes, weights, biases[..., 1], shift)


def kinds(context: Context, order: list[int], level: int, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and shape * 4 + fraction, i64 [N,C,h,w], of symbols [N,C,h,w]."""
    at = context.levels[level]
    means, weights = context.means[at.mean], context.activities[at.activity]
    values, mq, e = described(means, weights, at, order, context.cap, context.shift, symbols)
    return values, 4 * np.searchsorted(context.thresholds, e, side="right") + (mq & 3)


def bits(context: Context, order: list[int], level: int, symbols: np.ndarray) -> float:
    """Bits of one feature's symbols i8 [C,h,w] under the tables that their context chooses."""
    values, kind = kinds(context, order, level, symbols[None].astype(np.int64))
    low, high = int(values.min()), int(values.max())
    costs = np.stack([t.cost(low, high - low + 1) for shape in context.shapes for t in shape])
    return float(costs[kind, values - low].sum())
