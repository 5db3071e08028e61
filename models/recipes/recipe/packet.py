"""Packets as codec/tests/reference.py writes them, the second implementation of codec/FORMAT.md, and what one costs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from . import context
from .tables import Tables, histogram

REFERENCE = Path(__file__).resolve().parents[3] / "codec/tests/reference.py"
HEADER = 4
LANES = ((256, 1), (1792, 2), (3840, 4))  # bytes below which an encoder takes so many lanes; else 8
LANE_BYTES = 1.9  # what a lane's state takes beyond the seal that it carries and the symbols that it holds


def reference() -> ModuleType:
    if not REFERENCE.is_file():
        raise SystemExit(f"{REFERENCE} is missing: the recipe is part of the repository and runs inside it")
    spec = importlib.util.spec_from_file_location("reference", REFERENCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def mode(tables: Tables) -> str:
    """The mode that a bundle's packets take."""
    return "context" if tables.context else "static"


def size(tables: Tables, level: int, symbols: np.ndarray) -> float:
    """Expected bytes of the packet of symbols i8 [C,h,w], without writing it (within a few bytes)."""
    if tables.context:
        bits = context.bits(tables.context, tables.order, level, symbols)
    else:
        bits = sum(table.bits(row) for table, row in zip(tables.static[level], histogram(symbols[None]), strict=True))
    lanes = next((lanes for limit, lanes in LANES if bits / 8 < limit), 8)
    return HEADER + bits / 8 + LANE_BYTES * lanes
