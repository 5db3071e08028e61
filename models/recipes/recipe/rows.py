"""Rows of the comparison table: rate and accuracy of one system at one setting."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One system at one setting; None: not measured. Bytes include the header; agreement is with the unsplit network."""

    system: str
    setting: str
    coder: str
    arithmetic: str  # of the head: int8 or float
    head_macs: int  # for one photo
    head_parameters: int
    bytes: float | None = None
    agreement: float | None = None
    divergence: float | None = None
    frame_bytes: float | None = None
    miou: float | None = None
    miou_unsplit: float | None = None
    steps: int = 0
    crops: int = 0  # trained on, repetitions included
    hours: float | None = None  # training time on one processor core
    note: str = ""


def save(work: Path, rows: list[Row], name: str) -> None:
    """Write the rows of one system to WORK/rows and print them."""
    folder = work / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    for row in rows:
        print(
            f"{row.system} {row.setting} {row.coder}: {shown(row.bytes, 0)} B, agreement {shown(row.agreement, 3)}, "
            f"{shown(row.frame_bytes, 0)} B, mIoU {shown(row.miou, 3)}"
        )


def shown(value: float | None, digits: int) -> str:
    """A figure with so many digits, or a hyphen."""
    return "-" if value is None else f"{value:.{digits}f}"


def collect(work: Path) -> list[Row]:
    """All rows in WORK/rows; exits where there are none."""
    files = sorted((work / "rows").glob("*.json"))
    if not files:
        raise SystemExit(
            f"{work / 'rows'} holds no rows: run `python -m recipe measure` with each config, and `python -m recipe image-codecs`"
        )
    return [Row(**row) for file in files for row in json.loads(file.read_text())]


def table(rows: list[Row], path: Path) -> None:
    """Write the rows as CSV, with an empty cell where nothing was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        for row in rows:
            writer.writerow([cell(value) for value in asdict(row).values()])


def cell(value) -> str:
    """A value as text: floats with up to four digits after the point."""
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def read_table(path: Path) -> list[Row]:
    """The rows of a table that `table` wrote."""
    if not path.is_file():
        raise SystemExit(f"{path} is missing: run `python -m recipe compare` without --redraw")
    kinds = {field.name: field.type for field in fields(Row)}
    return [Row(**{name: parsed(text, kinds[name]) for name, text in row.items()}) for row in csv.DictReader(path.read_text().splitlines())]


def parsed(text: str, kind: str) -> str | int | float | None:
    """The value of a cell; `kind` is the annotation of the column's field."""
    if kind == "str":
        return text
    if kind == "int":
        return int(text)
    return float(text) if text else None
