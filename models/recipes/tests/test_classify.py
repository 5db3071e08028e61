"""The fine-tuned tail classifies decoded features better than the frozen one, with the same depthwise kernels."""

from pathlib import Path

import numpy as np
import torch

from recipe import backbone, classify, loss
from recipe.features import FeatureCache
from recipe.train import Trainer


def test_a_finetuned_tail_is_nearer_to_the_teacher(config: dict, work: Path):
    trainer = Trainer(config, work, 0, 1)
    trainer.initialise()
    trainer.advance()
    trainer.save(work / "student.pt")
    plan = {"items": 8, "steps": 12, "batch": 4, "lr": 1e-3, "ema_decay": 0.5, "feature_weight": 0.3}
    classify.run(config | {"classify": plan}, work, False)

    fitted, frozen = backbone.load(), backbone.load()
    fitted.load_state_dict(torch.load(work / "classify.pt", weights_only=True)["average"])
    split = torch.from_numpy(np.load(work / "decoded" / "split.npy")).float()
    wanted = torch.from_numpy(FeatureCache(work / "features").arrays["logits"][np.load(work / "decoded" / "crop.npy")])
    with torch.inference_mode():
        before, after = (loss.divergence(net.back(split).logits, wanted).mean() for net in (frozen, fitted))
    assert after < 0.8 * before
    kernels = zip(frozen.groups.modules(), fitted.groups.modules(), strict=True)
    assert all(torch.equal(a.weight, b.weight) for a, b in kernels if getattr(a, "groups", 1) != 1 and hasattr(a, "weight"))
