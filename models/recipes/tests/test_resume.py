"""Resumed training ends with the same bits as uninterrupted training; the end of the encoder's training."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from recipe.head import entropy
from recipe.train import Trainer, total_steps


def test_resumed_run_is_bit_equal(config: dict, work: Path):
    straight = Trainer(config, work, 0, 1)
    straight.initialise()
    for _ in range(8):
        straight.advance()
        if straight.step == 3:
            straight.save(work / "student.pt")
    resumed = Trainer(config, work, 0, 1)
    resumed.load(work / "student.pt")
    while resumed.step < 8:
        resumed.advance()
    for name, value in straight.average.values.items():
        assert torch.equal(value, resumed.average.values[name]), name


def test_without_a_third_stage_training_ends_with_the_averaged_and_equalised_encoder(config: dict, work: Path):
    plan = copy.deepcopy(config)
    plan["train"]["stage3"]["steps"] = 0
    trainer = Trainer(plan, work, 0, 1)
    trainer.initialise()
    for _ in range(total_steps(plan)):
        trainer.advance()
    assert all(layer.peak == 1 for layer in trainer.student.head.layers[:-1])
    for name, value in trainer.student.state_dict().items():
        assert torch.equal(value, trainer.average.values[name]), name


def test_a_level_that_is_never_drawn_keeps_its_gain_and_gets_a_fitted_prior(config: dict, work: Path):
    plan = copy.deepcopy(config)
    plan["train"]["stage3"]["steps"] = 0
    plan["levels"] = {
        "target_bytes": [300, 150, 60],
        "gains": [1.0, 0.5, 0.2],
        "probability": [0.5, 0.5, 0.0],
        "loss_weight": [1.0, 0.5, 0.1],
        "default": 0,
    }
    trainer = Trainer(plan, work, 0, 1)
    trainer.initialise()
    for prior in trainer.student.levels.priors[2].parameters():
        prior.data.add_(0.5)  # any other state: the end of the stage must fit it
    for _ in range(total_steps(plan)):
        trainer.advance()
    levels = trainer.student.levels
    assert levels.gains()[2].item() == pytest.approx(0.2)
    with torch.no_grad():
        symbols = torch.round(trainer.student.head(trainer.source.first(8)) * 0.2)
        spent = levels.bits(symbols, torch.full((len(symbols),), 2)).mean().item()
    assert spent < 1.15 * np.mean([entropy(channel) for channel in symbols.transpose(0, 1)]) + 0.05


def test_a_shortened_stage_freezes_the_encoder_of_an_earlier_checkpoint(config: dict, work: Path, tmp_path: Path):
    plan = copy.deepcopy(config)
    plan["levels"] = {
        "target_bytes": [300, 150, 60],
        "gains": [1.0, 0.5, 0.2],
        "probability": [0.5, 0.5, 0.0],
        "loss_weight": [1.0, 0.5, 0.1],
        "default": 0,
    }
    trainer = Trainer(plan, work, 0, 1)
    trainer.initialise()
    for _ in range(4):
        trainer.advance()
    trainer.save(tmp_path / "student.pt")
    plan["train"]["stage2"]["steps"] = 2
    resumed = Trainer(plan, work, 0, 1)
    resumed.load(tmp_path / "student.pt")
    assert all(layer.peak == 1 for layer in resumed.student.head.layers[:-1])
    fitted = [value.clone() for value in resumed.student.levels.priors[2].parameters()]
    assert not all(torch.equal(a, b) for a, b in zip(fitted, trainer.student.levels.priors[2].parameters(), strict=True))
    while resumed.step < total_steps(plan):
        resumed.advance()
    assert all(torch.equal(a, b) for a, b in zip(fitted, resumed.student.levels.priors[2].parameters(), strict=True))
