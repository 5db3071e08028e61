"""Rows of a campaign: what any system sends and what its answers lose, in one table and one plot."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One system at one setting; None is not measured. Bytes hold the header, drops are against the unsplit network."""

    system: str
    setting: str
    coder: str
    arithmetic: str  # of the device's part
    head_macs: int  # one photo
    head_parameters: int
    bytes: float | None = None
    agreement: float | None = None
    divergence: float | None = None
    frame_bytes: float | None = None
    miou: float | None = None
    miou_unsplit: float | None = None
    steps: int = 0
    crops: int = 0  # seen in training, repeats counted
    hours: float | None = None  # of one processor core, this system's training alone
    note: str = ""


def keep(work: Path, rows: list[Row], name: str) -> None:
    """Leave the rows of one system where `collect` finds them."""
    folder = work / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    for row in rows:
        print(
            f"{row.system} {row.setting} {row.coder}: {shown(row.bytes, 0)} B, agreement {shown(row.agreement, 3)}, "
            f"{shown(row.frame_bytes, 0)} B, mIoU {shown(row.miou, 3)}"
        )


def shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def collect(work: Path) -> list[Row]:
    files = sorted((work / "rows").glob("*.json"))
    if not files:
        raise SystemExit(f"{work / 'rows'} holds no rows: run `python -m recipe measure` with each config and `images`")
    return [Row(**row) for file in files for row in json.loads(file.read_text())]


def table(rows: list[Row], path: Path) -> None:
    """The rows as CSV, an empty cell where nothing was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Row)])
        for row in rows:
            writer.writerow([cell(value) for value in asdict(row).values()])


def cell(value) -> str:
    if value is None:
        return ""
    return f"{value:.4f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
