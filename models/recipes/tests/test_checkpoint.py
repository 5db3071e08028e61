"""Checkpoints: what is written is read, and other formats are refused."""

from pathlib import Path

import pytest
import torch

from recipe import checkpoint


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path):
    checkpoint.save(tmp_path / "a.pt", {"step": 3, "average": {"w": torch.ones(2)}})
    state = checkpoint.load(tmp_path / "a.pt")
    assert state["step"] == 3 and torch.equal(state["average"]["w"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]


def test_a_checkpoint_without_a_format_is_refused(tmp_path: Path):
    torch.save({"step": 3}, tmp_path / "a.pt")
    with pytest.raises(SystemExit, match="a.pt has checkpoint format 1, this version reads 2"):
        checkpoint.load(tmp_path / "a.pt")


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(SystemExit, match="a.pt is missing: run `python -m recipe train`"):
        checkpoint.load(tmp_path / "a.pt")
