"""Both published stages: match the teacher's features through the frozen tail, then the answer with the device's part fixed.

stage 1: summed squared errors at the split and at two deeper places of the frozen tail (GHND), plus the rate weight times
the bits where there is a prior. stage 2: decoder and tail learn the answer, encoder and prior stand still; our photos have
no labels, so the hard label of the published loss is the teacher's first answer.
All randomness is a function of (seed, step): a resumed run ends with the same bits.
"""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import backbone, loss
from ..experiment import merged
from ..features import FeatureCache, image_layout
from ..progress import Progress
from .networks import build

SAVE_EVERY = 25
START_CROPS = 16


def total_steps(config: dict) -> int:
    return config["stage1"]["steps"] + config["stage2"]["steps"]


def planned(config: dict, inherited: int) -> dict:
    """The config of a setting: one that inherited steps from a finer one takes each stage's `warm_start_steps`."""
    stages = {name: config[name] for name in ("stage1", "stage2")}
    shortened = {name: {"steps": stage.get("warm_start_steps", stage["steps"])} for name, stage in stages.items()}
    return merged(config, shortened) if inherited else config


def checkpoint(config: dict, work: Path, setting: float) -> Path:
    return work / f"{config['name']}-{setting:g}.pt"


def run(config: dict, work: Path, resume: bool, only: float | None = None) -> None:
    """Every setting of the sweep, one after the other, or the one asked for."""
    before = None
    for setting in config["baseline"]["settings"] if only is None else [only]:
        trainer = Trainer(config, work, setting)
        path = checkpoint(config, work, setting)
        if resume and path.is_file():
            trainer.load(path)
        elif config["baseline"]["warm_start"] and before is not None:
            trainer.follow(before)
        before = trainer.run(path)


class Trainer:
    def __init__(self, config: dict, work: Path, setting: float):
        self.config, self.setting = config, setting
        torch.manual_seed(config["seed"])
        self.cache = FeatureCache(work / "features")
        self.net = backbone.load(config["backbone"]["name"]).to(memory_format=torch.channels_last)
        self.student = build(config, setting, self.net.split_channels).to(memory_format=torch.channels_last)
        if self.student.rated:
            self.student.start_from(*self.first())
        self.tail: backbone.Backbone | None = None
        self.step, self.hours, self.inherited = 0, 0.0, 0
        self.prepare()

    def first(self) -> tuple[Tensor, Tensor]:
        """Pixels and split features of the crops that the weights are scaled on."""
        pixels, wanted = self.cache.batch(np.arange(min(START_CROPS, self.cache.count)), ("split",))
        return image_layout(pixels), wanted["split"]

    def follow(self, before: Path) -> None:
        """Start where the finer setting's first stage ended; its steps are counted as this one's too."""
        state = torch.load(before, weights_only=True)
        restore(self.student, state["matched"])
        self.inherited = state["inherited"] + planned(self.config, state["inherited"])["stage1"]["steps"]
        self.config = planned(self.config, self.inherited)
        self.hours = state["matched_hours"]

    @property
    def plan(self) -> dict:
        return self.config["stage2" if self.second else "stage1"]

    @property
    def second(self) -> bool:
        return self.step >= self.config["stage1"]["steps"]

    def prepare(self) -> None:
        """Parameters and optimiser of the current stage."""
        self.student.train().requires_grad_(True)
        if self.second:
            for part in self.student.device():
                part.eval().requires_grad_(False)
            self.tail = self.tail or copy.deepcopy(self.net)
            tail = [*self.tail.groups[backbone.SPLIT_GROUP :].parameters(), *self.tail.top.parameters()]
            tail += self.tail.classifier.parameters()
            for p in tail:
                p.requires_grad_(True)
            chosen = [*self.student.decoder.parameters(), *tail]
            plan = self.config["stage2"]
            self.optimiser = torch.optim.SGD(chosen, plan["lr"], plan["momentum"], weight_decay=plan["weight_decay"])
        else:
            chosen = [p for name, p in self.student.named_parameters() if not name.endswith("quantiles")]
            self.optimiser = torch.optim.Adam(chosen, self.config["stage1"]["lr"])

    def learning_rate(self) -> float:
        """A tenth after every published fraction of the stage."""
        first = self.config["stage1"]["steps"]
        passed = (self.step - first * self.second) / self.plan["steps"]
        return self.plan["lr"] * 0.1 ** sum(passed >= fall for fall in self.plan["lr_drops"])

    def rate_scale(self) -> float:
        """Share of the rate weight that counts at this step: all of it once `rise` of stage 1 has passed, or if this start is warm."""
        return 1.0 if self.inherited else min(1.0, self.step / max(1.0, self.plan.get("rate_warmup", 0.0) * self.plan["steps"]))

    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """Loss of one batch, per item."""
        rng = np.random.default_rng([self.config["seed"], self.step])
        torch.manual_seed(int(rng.integers(2**31)))
        crops = rng.integers(0, self.cache.count, self.plan["batch"])
        pixels, wanted = self.cache.batch(crops, ("logits",) if self.second else loss.PLACES)
        pixels = image_layout(pixels)
        if self.second:
            return self.answered(self.tail.back(self.student.decode_frozen(pixels)).logits, wanted["logits"])
        found, bits = self.student(pixels)
        stride16 = self.net.middle(found)
        features = dict(zip(loss.PLACES, (found, stride16, self.net.deep(stride16)), strict=True))
        errors = {place: (features[place] - wanted[place]).square().sum((1, 2, 3)).mean() for place in loss.PLACES}
        total = sum(errors.values())
        terms = {place: value.item() for place, value in errors.items()}
        if self.student.rated:
            total = total + self.setting * self.rate_scale() * bits.mean()
            terms["bytes"] = bits.mean().item() / 8
        return total, terms

    def answered(self, logits: Tensor, teacher: Tensor) -> tuple[Tensor, dict[str, float]]:
        """kd: half hard label, half soft targets at temperature 1; ft: the hard label alone."""
        hard = F.cross_entropy(logits, teacher.argmax(1))
        soft = loss.divergence(logits, teacher).mean()
        total = (hard + soft) / 2 if self.plan["method"] == "kd" else hard
        return total, {"hard": hard.item(), "soft": soft.item()}

    def advance(self) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        total, terms = self.losses()
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        before = self.second
        self.step += 1
        if self.second and not before:
            self.match()
        return terms

    def match(self) -> None:
        """The first stage is over: fix the medians, keep the weights for the other tasks and the next setting."""
        if self.student.rated:
            self.student.prior.update(force=True, update_quantiles=True)
        self.matched = {name: value.clone() for name, value in weights(self.student).items()}
        self.matched_hours = self.hours
        self.prepare()

    def run(self, path: Path) -> Path:
        """To the end of stage 2; returns the checkpoint."""
        total = total_steps(self.config)
        progress = Progress(path.stem, total, self.step, every=20)
        smooth: dict[str, float] = {}
        while self.step < total:
            began = time.process_time()
            for name, value in self.advance().items():
                smooth[name] = smooth.get(name, value) + 0.05 * (value - smooth.get(name, value))
            self.hours += (time.process_time() - began) / 3600
            if self.step % SAVE_EVERY == 0 or self.step == total:
                self.save(path)
            progress.step(self.step, " ".join(f"{name} {value:.4g}" for name, value in smooth.items()))
        return path

    def save(self, path: Path) -> None:
        state = {
            "step": self.step,
            "hours": self.hours,
            "inherited": self.inherited,
            "student": weights(self.student),
            "optimiser": self.optimiser.state_dict(),
        }
        if self.second:
            state |= {"tail": self.tail.state_dict(), "matched": self.matched, "matched_hours": self.matched_hours}
        aside = path.with_suffix(".new")
        torch.save(state, aside)
        os.replace(aside, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step, self.hours, self.inherited = state["step"], state["hours"], state["inherited"]
        self.config = planned(self.config, self.inherited)
        if ("tail" in state) != self.second:
            stage, now = 1 + ("tail" in state), 1 + self.second
            raise SystemExit(
                f"{path} stopped at step {self.step}, in stage {stage}; the config now puts that step into stage {now}: "
                "give stage1.steps (or warm_start_steps) back, or train without --resume"
            )
        restore(self.student, state["student"])
        self.prepare()
        if self.second:
            self.tail.load_state_dict(state["tail"])
            self.matched, self.matched_hours = state["matched"], state["matched_hours"]
        if state["optimiser"]["state"]:
            self.optimiser.load_state_dict(state["optimiser"])


def weights(student: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps: not the coder's tables, which follow from the prior."""
    return {name: value for name, value in student.state_dict().items() if not name.startswith("prior._")}


def restore(student: nn.Module, kept: dict[str, Tensor]) -> None:
    missing, unknown = student.load_state_dict(kept, strict=False)
    if unknown or any(not name.startswith("prior._") for name in missing):
        raise SystemExit(f"the checkpoint is of another network: {unknown or missing}")
