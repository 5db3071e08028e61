"""The probability tables of a bundle, fitted to the symbols of training crops and cached in WORK."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import torch

from . import channel_order, context, indexed, tables
from .bundle_parts import BundleParts
from .features import FeatureCache

# Settings of a config without [codec]; precision 0 takes 14 bits where symbols spread widely and 12 elsewhere.
CODEC = {"table_crops": 512, "groups": 6, "order_crops": 24, "indexed_tables": 32, "tile": 8, "precision": 0}


def training_symbols(parts: BundleParts, cache: FeatureCache, crops: int) -> list[np.ndarray]:
    """Symbols i8 [N,C,h,w] of training crops, one array per level."""
    chosen = np.random.default_rng(parts.config["seed"]).permutation(cache.count)[:crops]
    with torch.inference_mode():
        latents = torch.cat([parts.student.head(cache.batch(part, ())[0]) for part in np.array_split(chosen, max(1, crops // 32))])
    return [torch.round(latents * gain).clamp(-128, 127).to(torch.int8).numpy() for gain in parts.gains]


def priors(parts: BundleParts) -> list[np.ndarray]:
    """Learned probability f64 [C,256] of every symbol, one array per level."""
    return [parts.student.levels.histogram(index).numpy() for index in range(len(parts.gains))]


def fit(parts: BundleParts, cache: FeatureCache) -> tables.Tables:
    """Everything that tables.bin holds, from training crops alone."""
    settings, default = CODEC | parts.config.get("codec", {}), parts.config["levels"]["default"]
    symbols = training_symbols(parts, cache, settings["table_crops"])
    precisions = (settings["precision"],) if settings["precision"] else tables.PRECISIONS
    precision, static = tables.static(symbols, priors(parts), precisions)
    order = channel_order.choose(parts, static[default], cache, settings["order_crops"], default, settings["groups"])
    index = indexed.fit(symbols, settings["tile"], settings["indexed_tables"], precision) if settings["indexed_tables"] else None
    contexts = context.fit(symbols, order.channels, default, precision)
    return tables.Tables(static, precision, order.channels, order.groups, index, contexts)


def cached(parts: BundleParts, work: Path) -> tables.Tables:
    """The tables of these weights: read from WORK if they were fitted before, else fitted and written there."""
    cache = FeatureCache(work / "features")
    path = work / f"tables-{fingerprint(parts, cache)}.bin"
    if not path.is_file():
        fitted = fit(parts, cache)
        for old in work.glob("tables-*.bin"):
            old.unlink()
        temporary = path.with_suffix(".new")
        temporary.write_bytes(fitted.pack())
        os.replace(temporary, path)
    return tables.unpack(path.read_bytes())


def fingerprint(parts: BundleParts, cache: FeatureCache) -> str:
    """Hash of everything that the tables depend on: settings, gains, weights, and the code that fits them."""
    settings = (parts.config.get("codec"), parts.config["seed"], parts.config["levels"]["default"], parts.gains, cache.count)
    found = hashlib.sha256(repr(settings).encode())
    for code in (__file__, *(module.__file__ for module in (tables, context, indexed, channel_order))):
        found.update(Path(code).read_bytes())
    for name, value in (parts.student.state_dict() | parts.tail.state_dict()).items():
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]
