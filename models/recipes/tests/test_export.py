"""Tables are made once of the same weights, and again of others."""

import copy
from pathlib import Path

import pytest

from recipe import export
from recipe.train import Trainer


def test_tables_are_kept_as_long_as_the_weights_are(config: dict, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "features").symlink_to(work / "features")
    (tmp_path / "sensitivity.pt").symlink_to(work / "sensitivity.pt")
    trainer = Trainer(config, tmp_path, 0, 1)
    trainer.start()
    trainer.save(tmp_path / "student.pt")
    parts = export.load(config, tmp_path)
    made = export.cached_tables(parts, tmp_path).pack()

    def again(*_) -> None:
        raise RuntimeError("made again")

    monkeypatch.setattr(export, "make_tables", again)
    assert export.cached_tables(parts, tmp_path).pack() == made
    other = copy.deepcopy(parts)
    other.student.head.layers[0].conv.weight.data[0, 0, 0, 0] += 1
    with pytest.raises(RuntimeError, match="made again"):
        export.cached_tables(other, tmp_path)
    other = copy.deepcopy(parts)
    other.gains[1] *= 0.9
    with pytest.raises(RuntimeError, match="made again"):
        export.cached_tables(other, tmp_path)
    assert len(list(tmp_path.glob("tables-*.bin"))) == 1
