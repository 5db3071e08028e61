"""Multiply-accumulates and parameters of PyTorch modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def macs(modules: list[nn.Module], run) -> int:
    """Multiply-accumulates of convolutions, linear layers and GDN in `modules` while `run()` computes one image."""
    total = 0

    def add(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        nonlocal total
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            total += module.weight[0].numel() * output.numel()
        else:
            total += output.shape[1] * output.numel()

    counted = [part for module in modules for part in module.modules() if costs(part)]
    hooks = [part.register_forward_hook(add) for part in counted]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return total


def costs(module: nn.Module) -> bool:
    """Whether the module's products are counted."""
    return isinstance(module, (nn.Conv2d, nn.Linear)) or hasattr(module, "gamma_reparam")


def parameters(modules: list[nn.Module]) -> int:
    """Number of parameters of all modules."""
    return sum(p.numel() for module in modules for p in module.parameters())
