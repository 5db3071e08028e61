"""The optimiser Muon, which trains dense 3x3 kernels, and the moving average of weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, then the nearest semi-orthogonal matrix of the update (Jordan et al. 2024)."""

    def __init__(self, params, lr: float, momentum: float = 0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                velocity = state["momentum"]
                velocity.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(velocity, group["momentum"]).flatten(1)
                p.add_(orthogonal(update).view_as(p), alpha=-group["lr"])


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """An approximation of U V^T of the singular value decomposition, by Newton-Schulz iterations."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix / (matrix.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Average:
    """Exponential moving average of a module's parameters and buffers; the decay rises to its value over the first steps."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.values = {name: value.clone() for name, value in module.state_dict().items()}
        self.steps = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = module.state_dict()
        moving = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_([self.values[name] for name in moving], [state[name] for name in moving], 1 - decay)
        for name in state.keys() - moving:
            self.values[name].copy_(state[name])
