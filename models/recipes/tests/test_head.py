"""The integer head against the fake-quantised head of training."""

import numpy as np
import torch

from recipe.head import Head, quantise_head, requantise


def trained_head(pixels: torch.Tensor) -> Head:
    torch.manual_seed(3)
    head = Head(16, 8).train()
    with torch.no_grad():
        head.layers[-1].conv.weight.mul_(40)
        head(pixels)
    return head.eval()


def test_integer_head_agrees_with_training_arithmetic():
    pixels = torch.randint(0, 256, (2, 3, 64, 96)).float()
    head = trained_head(pixels)
    exact = quantise_head(head)
    with torch.no_grad():
        found = torch.round(head(pixels)).clamp(-128, 127).numpy()
    wanted = np.stack([exact.symbols(p.permute(1, 2, 0).numpy().astype(np.uint8), 1.0) for p in pixels])
    assert wanted.std() > 1
    assert np.abs(found - wanted).max() <= 1
    assert (found != wanted).mean() < 5e-3


def test_requantisation_rounds_halves_to_even_and_clamps():
    acc = np.array([[[1, 3, 5, -1, -3, 999, -999]]], np.int32)
    assert requantise(acc, np.array([0.5], np.float32), -128, 127).tolist() == [[[0, 2, 2, 0, -2, 127, -128]]]


def test_a_lower_gain_makes_smaller_symbols():
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).float()
    exact = quantise_head(trained_head(pixels))
    image = pixels[0].permute(1, 2, 0).numpy().astype(np.uint8)
    fine, coarse = (np.abs(exact.symbols(image, gain).astype(int)).sum() for gain in (1.0, 0.3))
    assert coarse < fine


def test_equalised_ranges_leave_the_unrounded_head_unchanged():
    torch.manual_seed(4)
    head = Head(16, 8)
    pixels = torch.nn.functional.interpolate(torch.rand(4, 3, 9, 9), 64, mode="bicubic").clamp(0, 1).mul(255).round()
    with torch.no_grad():
        head.layers[0].conv.weight[0].mul_(50)  # the other channels use a fiftieth of the range
        head.layers[0].conv.bias[0].mul_(50)
        head.layers[1].conv.weight[0].div_(50)
        head.layers[-1].conv.weight.mul_(30)
        for layer in head.layers:
            layer.quantisation_aware = False
        wanted = head.train()(pixels)
        for layer in head.layers:
            layer.quantisation_aware = True
        before = (head.eval()(pixels) - wanted).square().mean()
        head.equalise_ranges(pixels)
        after = (head(pixels) - wanted).square().mean()
        for layer in head.layers:
            layer.quantisation_aware = False
        assert torch.allclose(head.train()(pixels), wanted, atol=1e-4)
    assert after < 0.5 * before
