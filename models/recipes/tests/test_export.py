"""Tables are fitted once for the same weights, and again for others."""

import copy
from pathlib import Path

import pytest

from recipe import bundle_parts, fit_tables
from recipe.train import Trainer


def test_tables_are_cached_until_the_weights_change(config: dict, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "features").symlink_to(work / "features")
    (tmp_path / "sensitivity.pt").symlink_to(work / "sensitivity.pt")
    trainer = Trainer(config, tmp_path, 0, 1)
    trainer.initialise()
    trainer.save(tmp_path / "student.pt")
    parts = bundle_parts.load(config, tmp_path)
    made = fit_tables.cached(parts, tmp_path).pack()

    def again(*_) -> None:
        raise RuntimeError("fitted again")

    monkeypatch.setattr(fit_tables, "fit", again)
    assert fit_tables.cached(parts, tmp_path).pack() == made
    other = copy.deepcopy(parts)
    other.student.head.layers[0].conv.weight.data[0, 0, 0, 0] += 1
    with pytest.raises(RuntimeError, match="fitted again"):
        fit_tables.cached(other, tmp_path)
    other = copy.deepcopy(parts)
    other.gains[1] *= 0.9
    with pytest.raises(RuntimeError, match="fitted again"):
        fit_tables.cached(other, tmp_path)
    assert len(list(tmp_path.glob("tables-*.bin"))) == 1
