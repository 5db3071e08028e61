"""Losses between decoded and the teacher's features, weighted by the sensitivity of the teacher's class probabilities.

Every feature loss is a relative error: 1 for features that are constant at their mean, 0 for perfect ones.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .backbone import Backbone
from .features import FeatureCache, image_layout
from .head import STRIDE

PLACES = ("split", "stride16", "stride32")


def sensitivity(net: Backbone, cache: FeatureCache, crops: int, seed: int, batch: int = 16, share: float = 0.5) -> dict[str, Tensor]:
    """Weights [C] of the channels at each place: `share` by Fisher information, the rest by inverse variance.

    The Fisher information is E[(d log p(y|x) / d feature)^2] with the class y drawn from the teacher's probabilities p.
    """
    rng = np.random.default_rng(seed)
    draw = torch.Generator().manual_seed(seed)
    fisher = {place: 0.0 for place in PLACES}
    moments = {place: [0.0, 0.0] for place in PLACES}
    chosen = rng.permutation(cache.count)[:crops]
    for first in range(0, len(chosen), batch):
        _, target = cache.batch(chosen[first : first + batch], ("split",))
        split = target["split"].requires_grad_()
        stride16 = net.middle(split)
        stride32 = net.deep(stride16)
        _, logits = net.answer(stride32)
        labels = torch.multinomial(logits.detach().softmax(1), 1, generator=draw)
        features = dict(zip(PLACES, (split, stride16, stride32), strict=True))
        score = logits.log_softmax(1).gather(1, labels).sum()
        for place, grad in zip(PLACES, torch.autograd.grad(score, list(features.values())), strict=True):
            fisher[place] = fisher[place] + grad.square().sum((0, 2, 3))
            value = features[place].detach()
            moments[place][0] = moments[place][0] + value.mean((0, 2, 3)) * len(value) / len(chosen)
            moments[place][1] = moments[place][1] + value.square().mean((0, 2, 3)) * len(value) / len(chosen)
    weights = {}
    for place in PLACES:
        mean, square = moments[place]
        variance = (square - mean.square()).clamp_min(1e-6)
        information = fisher[place] / (fisher[place] * variance).sum()
        weights[place] = share * information + (1 - share) / (variance * len(variance))
    return weights


def patch_metric(
    net: Backbone, cache: FeatureCache, weights: dict[str, Tensor], terms: dict[str, float], crops: int, seed: int, side: int = STRIDE
) -> Tensor:
    """Gauss-Newton matrix [3 side^2, 3 side^2] of the training loss in the pixels of a patch, averaged over patches.

    It is the second moment of the gradient of a random projection of the weighted residuals, J^T W J. A tenth of the mean
    diagonal is added to the diagonal, so that no direction of the pixels has weight 0.
    """
    draw = torch.Generator().manual_seed(seed)
    chosen = np.random.default_rng(seed + 1).permutation(cache.count)[:crops]
    moment = torch.zeros(3 * side**2, 3 * side**2, dtype=torch.float64)
    for first in range(0, len(chosen), 4):
        pixels, _ = cache.batch(chosen[first : first + 4], ())
        image = image_layout(pixels).requires_grad_()
        split = net.front(image)
        taps = net.back(split)
        labels = torch.multinomial(taps.logits.detach().softmax(1), 1, generator=draw)
        score = (terms["logits"] / 2) ** 0.5 * taps.logits.log_softmax(1).gather(1, labels).sum()
        for place, feature in zip(PLACES, (split, taps.stride16, taps.stride32), strict=True):
            weight = weights[place] * terms[place] / (feature.shape[2] * feature.shape[3])
            noise = torch.randn(feature.shape, generator=draw)
            score = score + (noise * feature * weight.sqrt()[None, :, None, None]).sum()
        (grad,) = torch.autograd.grad(score, image)
        rows = F.unfold(grad, side, stride=side).transpose(1, 2).flatten(0, 1).double()
        moment += rows.T @ rows / (len(chosen) * rows.shape[0] / len(pixels))
    return moment + 0.1 * moment.diag().mean() * torch.eye(len(moment), dtype=torch.float64)


def distance(found: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Squared error of features [N,C,h,w], weighted by channel, for each item [N]."""
    return ((found.float() - target.float()).square().mean((2, 3)) * weight).sum(1)


def divergence(found: Tensor, target: Tensor) -> Tensor:
    """KL divergence of the class probabilities of logits [N,classes] from the teacher's, for each item [N]."""
    return F.kl_div(found.float().log_softmax(1), target.float().log_softmax(1), reduction="none", log_target=True).sum(1)
