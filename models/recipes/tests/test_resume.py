"""A run that was stopped and resumed ends with the same bits as one that was not."""

from pathlib import Path

import torch

from recipe.train import Trainer


def test_resumed_run_is_bit_equal(config: dict, work: Path):
    straight = Trainer(config, work, 0, 1)
    straight.start()
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
