"""Ablations: what each trial changes, where its rows are written, and that trials are compared at the same bytes."""

import csv
from pathlib import Path

import pytest
import torch

from recipe import ablate, experiment

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_trials_change_only_what_they_state():
    config, base = experiment.load(CONFIGS / "ablations.toml"), experiment.load(CONFIGS / "lite2.toml")
    plans = {name: ablate.planned(config, trial) for name, trial in config["trial"].items()}
    assert all(plan["train"]["batch"] == 8 and plan["head"] == base["head"] for name, plan in plans.items() if name != "quantisation-aware")
    assert "on_the_fly" not in plans["base"] and plans["on-the-fly"]["on_the_fly"] == base["on_the_fly"]
    assert plans["quantisation-aware"]["head"] == base["head"] | {"quantisation_aware": False}
    assert plans["decoder"]["decoder"] == plans["base"]["decoder"] | {"width": 48}
    assert sum(plan != plans["base"] for plan in plans.values()) == len(plans) - 1
    assert all(("removes" in trial) != ("adds" in trial) for name, trial in config["trial"].items() if name != "base")


def test_gains_give_the_requested_entropy():
    torch.manual_seed(1)
    latents = torch.randn(6, 4, 12, 12) * 20
    for budget in (300, 120):
        assert ablate.entropy_bytes(latents, ablate.gain_for_bytes(latents, budget)) == pytest.approx(budget, rel=0.02)


def test_a_missing_table_is_created(tmp_path: Path):
    path = tmp_path / "results" / "ablations.csv"
    ablate.write(path, {"base": {}, "mean": {"adds": "a"}}, {"base": [(1.0, 0.5, 0.2)], "mean": [(1.0, 0.6, 0.1)]})
    assert [row["part"] for row in csv.DictReader(path.open())] == ["mean"]


def test_rows_replace_earlier_rows_of_the_same_trial(tmp_path: Path):
    path = tmp_path / "ablations.csv"
    path.write_text(
        "part,level,bytes_without,agreement_without,divergence_without,bytes_with,agreement_with,divergence_with\n"
        "other,0,1.0,0.5,0.1,2.0,0.6,0.2\nmean,0,9.0,9.0,9.0,9.0,9.0,9.0\n"
    )
    trials = {"base": {}, "mean": {"adds": "a"}, "ema": {"removes": "b"}}
    ablate.write(path, trials, {"base": [(100.0, 0.8, 0.1)], "mean": [(101.0, 0.9, 0.05)], "ema": [(99.0, 0.7, 0.3)]})
    rows = {row["part"]: row for row in csv.DictReader(path.open())}
    assert list(rows) == ["other", "mean", "ema"]
    assert (rows["mean"]["divergence_without"], rows["mean"]["divergence_with"]) == ("0.1", "0.05")
    assert (rows["ema"]["divergence_without"], rows["ema"]["divergence_with"]) == ("0.3", "0.1")
