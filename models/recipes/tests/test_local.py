"""The local network: requantisation, sums, and input-dependent rounding of weights."""

import numpy as np
import torch

from recipe.int8_network import Add, Pool, requantise
from recipe.quantise import round_weights


def test_requantisation_rounds_halves_to_even_and_clamps():
    assert requantise(torch.tensor([0.5, 1.5, 2.5, -0.5, -9.0, 300.0]), 1).tolist() == [1, 3, 3, 1, 0, 255]


def test_an_addition_rounds_each_product():
    add = Add("add", np.float32(0.1), 128, np.float32(0.3), 0, np.float32(0.2), 10)
    a, b = torch.tensor([129, 0, 255], dtype=torch.uint8), torch.tensor([1, 0, 255], dtype=torch.uint8)
    first = (a.numpy().astype(np.float32) - 128) * (np.float32(0.1) / np.float32(0.2))
    second = b.numpy().astype(np.float32) * (np.float32(0.3) / np.float32(0.2))
    exact = np.clip(np.rint(first + second) + 10, 0, 255)
    assert add(a, b).tolist() == exact.tolist()


def test_a_mean_is_exact_until_it_is_requantised():
    x = torch.tensor([[[[1, 2], [3, 5]]]], dtype=torch.uint8)
    assert Pool("pool", np.float32(1), 0, np.float32(1), 0)(x).item() == 3
    assert Pool("pool", np.float32(1), 1, np.float32(0.5), 7)(x).item() == 11


def test_rounding_minimises_the_error_of_the_output():
    rng = np.random.default_rng(1)
    # Correlated inputs: the rounding error of one weight can be compensated by the others.
    quantised = (rng.normal(size=(1, 400)) + 0.1 * rng.normal(size=(8, 400)))[:, :, None, None]
    weight, scale = rng.normal(size=(5, 8, 1, 1)), np.full(5, 0.25)

    def error(integers: np.ndarray, exact: np.ndarray) -> float:
        return float((((integers * 0.25)[:, :, 0, 0] @ quantised[:, :, 0, 0] - weight[:, :, 0, 0] @ exact[:, :, 0, 0]) ** 2).mean())

    plain = np.rint(weight / 0.25)
    assert error(round_weights(weight, scale, quantised, quantised, False), quantised) < 0.5 * error(plain, quantised)
    # A systematic error of the input is compensated as well.
    exact = 1.2 * quantised
    assert error(round_weights(weight, scale, quantised, exact, False), exact) < 0.5 * error(
        round_weights(weight, scale, quantised, quantised, False), exact
    )
    # A depthwise layer, each channel separately.
    taps = rng.normal(size=(3, 400, 1, 1)) + 0.1 * rng.normal(size=(3, 400, 3, 3))
    weight = rng.normal(size=(3, 1, 3, 3))
    found = round_weights(weight, np.full(3, 0.25), taps, taps, True)
    assert found.shape == weight.shape and np.abs(found * 0.25 - weight).max() < 1
