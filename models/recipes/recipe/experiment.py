"""An experiment as data: a TOML file, and what it inherits from another."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path


def load(path: Path, heirs: tuple[Path, ...] = ()) -> dict:
    """The config in `path`; with `inherit`, the config of that name beside it where `path` says nothing else."""
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run from models/recipes or pass --config")
    if path.resolve() in heirs:
        raise SystemExit(f"{path} inherits itself by way of " + ", ".join(heir.name for heir in heirs))
    config = tomllib.loads(path.read_text())
    if "inherit" not in config:
        return config
    return merged(load(path.parent / config["inherit"], (*heirs, path.resolve())), config)


def merged(base: dict, change: dict) -> dict:
    """`base` with the values of `change` in their places, tables joined."""
    found = copy.deepcopy(base)
    for key, value in change.items():
        found[key] = merged(found[key], value) if isinstance(value, dict) and isinstance(found.get(key), dict) else copy.deepcopy(value)
    return found
