"""Calibrated gains change the symbols, not the values that the decoder computes from a latent."""

import pytest
import torch

from recipe import backbone
from recipe.student import Student


@torch.no_grad()
def test_scaled_gains_leave_decoded_features_unchanged(config: dict):
    torch.manual_seed(3)
    student, net, pixels = Student(config), backbone.load(), 255 * torch.rand(1, 3, 64, 64)
    for part in student.decoder.level:
        if isinstance(part, torch.nn.Linear):
            torch.nn.init.normal_(part.weight, std=0.3)
    student.head.train()(pixels)  # measures the ranges of the integer grid
    student.eval()
    factors = [0.8, 1.25]
    before = [decoded(student, pixels, level, net, 1.0) for level in (0, 1)]
    gains = student.levels.gains()
    student.scale_gains(factors)
    torch.testing.assert_close(student.levels.gains() * torch.tensor([1.0, 0.8]), gains * torch.tensor([1.0, 1.25]))
    for level, factor in enumerate(factors):
        # The old step in the latent's new unit: the decoder's input, and so its output, is unchanged.
        torch.testing.assert_close(decoded(student, pixels, level, net, factor), before[level], rtol=1e-3, atol=1e-3)


def decoded(student: Student, pixels: torch.Tensor, level: int, net: backbone.Backbone, factor: float) -> torch.Tensor:
    """Features decoded from the unrounded latent, with the step times `factor`."""
    step = factor / student.levels.gains()[level].expand(1)
    return student.decoder(student.head(pixels), step, net)[0]


def test_calibration_needs_packet_sizes_and_a_measurement(config: dict, tmp_path):
    from recipe import calibrate

    with pytest.raises(SystemExit, match="levels.packet_bytes"):
        calibrate.run(config, tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="measure --images photos"):
        calibrate.run(config | {"levels": config["levels"] | {"packet_bytes": [300, 150]}}, tmp_path, tmp_path)
