"""The log of test set uses: one header, one line per use, and no other table is changed."""

import csv
from pathlib import Path

import pytest

from recipe import test_set_log

BENCH = Path(__file__).resolve().parents[3] / "bench"


def test_every_use_is_a_line_below_one_header(tmp_path: Path):
    tar = tmp_path / "photos.tar"
    tar.write_bytes(b"abc")
    log = tmp_path / "results" / test_set_log.FILE
    test_set_log.note(log, "recipe evaluate", "first", tar)
    test_set_log.note(log, "recipe evaluate", "second", tar)
    with log.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["system"] for row in rows] == ["first", "second"]
    assert {(row["photos"], row["sha256"]) for row in rows} == {("photos.tar", "ba7816bf8f01")}
    header = f'"{",".join(test_set_log.HEADER)}"'
    assert any(header in file.read_text() for file in BENCH.rglob("*.rs"))


def test_another_table_is_refused(tmp_path: Path):
    log = tmp_path / "table.csv"
    log.write_text("level,bytes\n")
    with pytest.raises(SystemExit, match="is no log of test set uses"):
        test_set_log.note(log, "", "", log)
