"""Configs: inheritance, that all shipped ones load, and that lite2-next starts from the shipped bundle."""

from pathlib import Path

import pytest

from recipe import experiment, init_from_bundle
from recipe.student import Student

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_inherited_tables_are_merged_and_values_replaced(tmp_path: Path):
    (tmp_path / "base.toml").write_text('name = "base"\nseed = 1\n[train]\nbatch = 8\nplan = { steps = 3, rate = 0.1 }\n')
    (tmp_path / "middle.toml").write_text('inherit = "base.toml"\n[train]\nplan = { steps = 5 }\n')
    (tmp_path / "last.toml").write_text('inherit = "middle.toml"\nname = "last"\n')
    found = experiment.load(tmp_path / "last.toml")
    assert (found["name"], found["seed"]) == ("last", 1)
    assert found["train"] == {"batch": 8, "plan": {"steps": 5, "rate": 0.1}}


def test_a_missing_config_is_named(tmp_path: Path):
    (tmp_path / "one.toml").write_text('inherit = "other.toml"\n')
    with pytest.raises(SystemExit, match="other.toml is missing"):
        experiment.load(tmp_path / "one.toml")


def test_a_cycle_of_configs_is_named(tmp_path: Path):
    (tmp_path / "one.toml").write_text('inherit = "other.toml"\n')
    (tmp_path / "other.toml").write_text('inherit = "one.toml"\n')
    with pytest.raises(SystemExit, match="one.toml inherits from itself through one.toml, other.toml"):
        experiment.load(tmp_path / "one.toml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_is_an_experiment(path: Path):
    config = experiment.load(path)
    assert {"name", "seed", "data", "backbone"} <= set(config)
    if "baseline" not in config:
        Student(config)


def test_the_next_training_starts_from_the_shipped_bundle():
    config = experiment.load(CONFIGS / "lite2-next.toml")
    init_from_bundle.load(Student(config), CONFIGS.parent / config["train"]["init_from"])


def test_an_unknown_key_is_refused(tmp_path: Path):
    (tmp_path / "one.toml").write_text("[heads]\nwidth = 1\n")
    with pytest.raises(SystemExit, match="one.toml holds heads: known are"):
        experiment.load(tmp_path / "one.toml")
