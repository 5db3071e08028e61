"""manifest.toml and the configs that `new` writes: plain dictionaries as TOML."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def value(x) -> str:
    """One TOML value; floats keep every digit."""
    if isinstance(x, bool):
        return str(x).lower()
    if isinstance(x, str):
        return json.dumps(x, ensure_ascii=False)
    if isinstance(x, dict):
        return "{ " + ", ".join(f"{key} = {value(item)}" for key, item in x.items()) + " }"
    if isinstance(x, (list, tuple)):
        return "[" + ", ".join(map(value, x)) + "]"
    return repr(x)


def document(entries: dict, inline: frozenset[str] = frozenset()) -> str:
    """Top-level values, then tables; a list of dictionaries is an array of tables, `inline` keys stay on one line."""
    plain = {key: x for key, x in entries.items() if not tabular(x)}
    lines = [f"{key} = {value(x)}" for key, x in plain.items()]
    for key, x in entries.items():
        if key in plain:
            continue
        for table in [x] if isinstance(x, dict) else x:
            lines += ["", f"[{key}]" if isinstance(x, dict) else f"[[{key}]]"]
            lines += [f"{name} = {value(item)}" for name, item in table.items() if not nested(name, item, inline)]
            for name, item in table.items():
                if nested(name, item, inline):
                    for row in item:
                        lines += ["", f"[[{key}.{name}]]"] + [f"{k} = {value(v)}" for k, v in row.items()]
    return "\n".join(lines) + "\n"


def tabular(x) -> bool:
    return isinstance(x, dict) or (isinstance(x, list) and bool(x) and isinstance(x[0], dict))


def nested(name: str, item, inline: frozenset[str]) -> bool:
    return name not in inline and isinstance(item, list) and bool(item) and isinstance(item[0], dict)


def write(folder: Path, entries: dict) -> None:
    """manifest.toml (models/BUNDLE.md, section 2) with the digest of every other file in the folder."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != "manifest.toml")
    digests = "".join(f'"{f.relative_to(folder).as_posix()}" = "{digest(f)}"\n' for f in files)
    (folder / "manifest.toml").write_text(f"{document({'format': 1} | entries)}\n[digests]\n{digests}")
