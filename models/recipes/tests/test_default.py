"""The default student: names and shapes of its weights, which checkpoints depend on, and its output for fixed weights."""

import hashlib

import pytest
import torch

from recipe import backbone
from recipe.student import Student

CONFIG = {
    "backbone": {"name": "lite2"},
    "head": {"width": 80, "latent": 24},
    "decoder": {"width": 96, "blocks_before": 2, "blocks_after": 1},
    "levels": {"gains": [1.0, 0.62, 0.38, 0.22, 0.12]},
}
NAMES = "0a4da3361844eab253b59baef5e4bc074fc1e9251651e4678cfc3d714d58364d"  # SHA-256 of every weight's name and shape


def test_names_and_shapes_of_the_weights_are_unchanged():
    rows = "\n".join(f"{name} {tuple(value.shape)}" for name, value in sorted(Student(CONFIG).state_dict().items()))
    assert hashlib.sha256(rows.encode()).hexdigest() == NAMES


def test_features_and_sketch_are_unchanged():
    torch.manual_seed(11)
    student, net = Student(CONFIG).train(), backbone.load()
    torch.manual_seed(12)
    smooth = torch.nn.functional.interpolate(torch.rand(2, 3, 9, 9), 64, mode="bicubic").clamp(0, 1)
    pixels = (smooth * 255).round()
    with torch.no_grad():
        student.head.layers[-1].conv.weight.mul_(40)
        student.head(pixels)
        found, sketch, _ = student(pixels, torch.tensor([0, 3]), net)
    figures = [value.item() for part in (found, sketch) for value in (part.mean(), part.std())]
    assert figures == pytest.approx([0.327492, 9.639641, -0.020443, 1.024375], abs=2e-4)
    assert (student.head.macs(224, 224), student.head.parameters_count()) == (19_129_600, 24_664)
