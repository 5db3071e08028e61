"""manifest.toml of a bundle (models/BUNDLE.md, section 2), read and written as plain dictionaries."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import tomli_w

FORMAT = 3  # of the bundle, models/BUNDLE.md
FILE = "manifest.toml"


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(folder: Path) -> dict:
    """The manifest of the bundle in `folder`."""
    path = folder / FILE
    if not path.is_file():
        raise SystemExit(f"{path} is missing: {folder} is no bundle")
    return tomllib.loads(path.read_text())


def write(folder: Path, entries: dict) -> None:
    """Write the manifest with `entries`, this format's number and the digest of every other file in the folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != FILE)
    digests = {file.relative_to(folder).as_posix(): digest(file) for file in files}
    (folder / FILE).write_text(tomli_w.dumps({"format": FORMAT} | entries | {"format": FORMAT, "digests": digests}))
