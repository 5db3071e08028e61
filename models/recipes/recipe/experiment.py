"""Experiments as data: a TOML file, and what it inherits from another."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path

TABLES = {
    *("backbone", "baseline", "change", "classify", "codec", "data", "decoder", "frame", "head", "levels", "local", "on_the_fly"),
    *("photo", "segment", "stage1", "stage2", "tail", "tasks", "train", "trial"),
}
KEYS = TABLES | {"cached_crops", "compare_with", "inherit", "name", "note", "seed", "threads"}


def load(path: Path, heirs: tuple[Path, ...] = ()) -> dict:
    """The config in `path`; with `inherit`, merged into the config of that name in the same folder.

    `heirs` are the configs that are being loaded and inherit from this one. Exits with a message where a file is missing,
    inherits from itself or holds an unknown key.
    """
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run from models/recipes or pass --config")
    if path.resolve() in heirs:
        raise SystemExit(f"{path} inherits from itself through " + ", ".join(heir.name for heir in heirs))
    config = tomllib.loads(path.read_text())
    if unknown := config.keys() - KEYS:
        raise SystemExit(f"{path} holds {', '.join(sorted(unknown))}: known are {', '.join(sorted(KEYS))}")
    if "inherit" not in config:
        return config
    return merged(load(path.parent / config["inherit"], (*heirs, path.resolve())), config)


def merged(base: dict, change: dict) -> dict:
    """A copy of `base` with the values of `change`; tables are merged key by key."""
    found = copy.deepcopy(base)
    for key, value in change.items():
        found[key] = merged(found[key], value) if isinstance(value, dict) and isinstance(found.get(key), dict) else copy.deepcopy(value)
    return found


def is_baseline(config: dict) -> bool:
    """Whether the config is of a published system that ours is compared with; no bundle is made of it."""
    return "baseline" in config
