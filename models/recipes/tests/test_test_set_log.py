"""The log of test photos: one header, a line a read, and no other table is written into."""

import csv
from pathlib import Path

import pytest

from recipe import test_set_log

RUST = Path(__file__).resolve().parents[3] / "bench/src/reads.rs"


def test_every_read_is_a_line_behind_one_header(tmp_path: Path):
    tar = tmp_path / "photos.tar"
    tar.write_bytes(b"abc")
    log = tmp_path / "results" / "reads.csv"
    test_set_log.note(log, "recipe evaluate", "first", tar)
    test_set_log.note(log, "recipe evaluate", "second", tar)
    with log.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["system"] for row in rows] == ["first", "second"]
    assert {(row["photos"], row["sha256"]) for row in rows} == {("photos.tar", "ba7816bf8f01")}
    assert f'"{",".join(test_set_log.HEADER)}"' in RUST.read_text()


def test_another_table_is_not_written_into(tmp_path: Path):
    log = tmp_path / "table.csv"
    log.write_text("level,bytes\n")
    with pytest.raises(SystemExit, match="is no log of reads"):
        test_set_log.note(log, "", "", log)
