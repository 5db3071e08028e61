"""Gains per channel: without effect before training, one gain per channel after it, and refused by the exporter."""

import pytest
import torch

from recipe.rate import Levels


@pytest.fixture
def latent() -> torch.Tensor:
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(5)) * 6


def sent(levels: Levels, latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(6)
    values, step, _ = levels(latent, torch.tensor([0, 1, 1]))
    return values, step


def test_untrained_channel_gains_equal_the_levels_gain(latent: torch.Tensor):
    torch.manual_seed(4)
    plain = Levels(4, [1.0, 0.4])
    torch.manual_seed(4)
    vectors = Levels(4, [1.0, 0.4], per_channel=True)
    for one, other in zip(sent(plain, latent), sent(vectors, latent), strict=True):
        assert torch.equal(one, other)
    assert plain.export_gains() == pytest.approx([1.0, 0.4])


def test_a_channels_gain_is_the_levels_times_its_factor(latent: torch.Tensor):
    levels = Levels(4, [1.0, 0.4], per_channel=True)
    levels.log_ratio.data[1, 2] = 1.0
    values, step = sent(levels, latent)
    unit = 0.4 * torch.e
    torch.testing.assert_close(values[1, 2], torch.round(latent[1, 2] * unit) / unit)
    torch.testing.assert_close(values[1, 0], torch.round(latent[1, 0] * 0.4) / 0.4)
    torch.testing.assert_close(step, torch.tensor([1.0, 2.5, 2.5]))


def test_channel_gains_are_trained_but_not_exported(latent: torch.Tensor):
    levels = Levels(4, [1.0, 0.4], per_channel=True)
    values, _ = sent(levels, latent)
    values.square().sum().backward()
    assert (levels.log_ratio.grad != 0).all()
    with pytest.raises(SystemExit, match="levels.channel_gains trains a gain per channel, a bundle holds one per level"):
        levels.export_gains()
