"""Training of the baselines in the two published stages.

Stage 1 minimises the summed squared errors at the split and at two deeper places of the frozen network (generalised head
network distillation), plus the rate weight times the bits where there is a prior. Stage 2 trains decoder and tail to
classify, with encoder and prior frozen. Our photos have no labels: the hard label of the published loss is the teacher's
top-1 class. All randomness is a function of (seed, step), so a resumed run ends with the same bits.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import backbone, checkpoint, loss
from ..experiment import merged
from ..features import FeatureCache, image_layout
from ..progress import Progress
from .networks import build

SAVE_EVERY = 25
INITIAL_CROPS = 16  # on which the initial weights are scaled


def total_steps(config: dict) -> int:
    """Steps of both stages."""
    return config["stage1"]["steps"] + config["stage2"]["steps"]


def stage_settings(config: dict, inherited: int) -> dict:
    """The config of one setting: one that continued from a finer setting makes `warm_start_steps` in each stage."""
    stages = {name: config[name] for name in ("stage1", "stage2")}
    shortened = {name: {"steps": stage.get("warm_start_steps", stage["steps"])} for name, stage in stages.items()}
    return merged(config, shortened) if inherited else config


def checkpoint_path(config: dict, work: Path, setting: float) -> Path:
    """Where the training state of a setting is kept."""
    return work / f"{config['name']}-{setting:g}.pt"


def run(config: dict, work: Path, resume: bool, only: float | None = None) -> None:
    """Train every setting of the sweep in order, or only the setting `only`."""
    before = None
    for setting in config["baseline"]["settings"] if only is None else [only]:
        trainer = Trainer(config, work, setting)
        path = checkpoint_path(config, work, setting)
        if resume and path.is_file():
            trainer.load(path)
        elif config["baseline"]["warm_start"] and before is not None:
            trainer.continue_from(before)
        before = trainer.run(path)


class Trainer:
    """Training state of one setting."""

    def __init__(self, config: dict, work: Path, setting: float):
        self.config, self.setting = config, setting
        torch.manual_seed(config["seed"])
        self.cache = FeatureCache(work / "features")
        self.net = backbone.load(config["backbone"]["name"]).to(memory_format=torch.channels_last)
        self.student = build(config, setting, self.net.split_channels).to(memory_format=torch.channels_last)
        if self.student.has_prior:
            self.student.initialise(*self.first())
        self.tail: backbone.Backbone | None = None
        self.step, self.hours, self.inherited = 0, 0.0, 0
        self.prepare()

    def first(self) -> tuple[Tensor, Tensor]:
        """Pixels and split features of the crops on which the initial weights are scaled."""
        pixels, targets = self.cache.batch(np.arange(min(INITIAL_CROPS, self.cache.count)), ("split",))
        return image_layout(pixels), targets["split"]

    def continue_from(self, before: Path) -> None:
        """Start where the first stage of the finer setting ended; its steps count as this setting's too."""
        state = checkpoint.load(before)
        restore(self.student, state["matched"])
        self.inherited = state["inherited"] + stage_settings(self.config, state["inherited"])["stage1"]["steps"]
        self.config = stage_settings(self.config, self.inherited)
        self.hours = state["matched_hours"]

    @property
    def plan(self) -> dict:
        """Settings of the current stage."""
        return self.config["stage2" if self.second else "stage1"]

    @property
    def second(self) -> bool:
        """Whether the current step belongs to stage 2."""
        return self.step >= self.config["stage1"]["steps"]

    def prepare(self) -> None:
        """Choose the parameters that the current stage trains, and create their optimiser."""
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
        """The stage's learning rate, divided by ten after each of the fractions `lr_drops`."""
        first = self.config["stage1"]["steps"]
        passed = (self.step - first * self.second) / self.plan["steps"]
        return self.plan["lr"] * 0.1 ** sum(passed >= fall for fall in self.plan["lr_drops"])

    def rate_scale(self) -> float:
        """Factor on the rate weight: rises to 1 over the first `rate_warmup` of stage 1; always 1 after a warm start."""
        return 1.0 if self.inherited else min(1.0, self.step / max(1.0, self.plan.get("rate_warmup", 0.0) * self.plan["steps"]))

    def losses(self) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of the batch of the current step, and its terms."""
        rng = np.random.default_rng([self.config["seed"], self.step])
        torch.manual_seed(int(rng.integers(2**31)))
        crops = rng.integers(0, self.cache.count, self.plan["batch"])
        pixels, targets = self.cache.batch(crops, ("logits",) if self.second else loss.PLACES)
        pixels = image_layout(pixels)
        if self.second:
            return self.classification_loss(self.tail.back(self.student.decode_frozen(pixels)).logits, targets["logits"])
        found, bits = self.student(pixels)
        stride16 = self.net.middle(found)
        features = dict(zip(loss.PLACES, (found, stride16, self.net.deep(stride16)), strict=True))
        errors = {place: (features[place] - targets[place]).square().sum((1, 2, 3)).mean() for place in loss.PLACES}
        total = sum(errors.values())
        terms = {place: value.item() for place, value in errors.items()}
        if self.student.has_prior:
            total = total + self.setting * self.rate_scale() * bits.mean()
            terms["bytes"] = bits.mean().item() / 8
        return total, terms

    def classification_loss(self, logits: Tensor, teacher: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Method kd: mean of the cross entropy with the hard label and the KL divergence at temperature 1; ft: the former alone."""
        hard = F.cross_entropy(logits, teacher.argmax(1))
        soft = loss.divergence(logits, teacher).mean()
        total = (hard + soft) / 2 if self.plan["method"] == "kd" else hard
        return total, {"hard": hard.item(), "soft": soft.item()}

    def advance(self) -> dict[str, float]:
        """Make one step; returns the terms of the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        total, terms = self.losses()
        self.optimiser.zero_grad()
        total.backward()
        self.optimiser.step()
        before = self.second
        self.step += 1
        if self.second and not before:
            self.finish_first_stage()
        return terms

    def finish_first_stage(self) -> None:
        """Fix the prior's medians, and keep the weights for segmentation and for the next setting."""
        if self.student.has_prior:
            self.student.prior.update(force=True, update_quantiles=True)
        self.matched = {name: value.clone() for name, value in weights(self.student).items()}
        self.matched_hours = self.hours
        self.prepare()

    def run(self, path: Path) -> Path:
        """Train to the end of stage 2; returns the path of the checkpoint."""
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
        """Write a checkpoint."""
        state = {
            "step": self.step,
            "hours": self.hours,
            "inherited": self.inherited,
            "student": weights(self.student),
            "optimiser": self.optimiser.state_dict(),
        }
        if self.second:
            state |= {"tail": self.tail.state_dict(), "matched": self.matched, "matched_hours": self.matched_hours}
        checkpoint.save(path, state)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint; exits where the config now puts its step into the other stage."""
        state = checkpoint.load(path)
        self.step, self.hours, self.inherited = state["step"], state["hours"], state["inherited"]
        self.config = stage_settings(self.config, self.inherited)
        if ("tail" in state) != self.second:
            stage, now = 1 + ("tail" in state), 1 + self.second
            raise SystemExit(
                f"{path} stopped at step {self.step}, in stage {stage}; the config now puts that step into stage {now}: "
                "restore stage1.steps (or warm_start_steps), or train without --resume"
            )
        restore(self.student, state["student"])
        self.prepare()
        if self.second:
            self.tail.load_state_dict(state["tail"])
            self.matched, self.matched_hours = state["matched"], state["matched_hours"]
        if state["optimiser"]["state"]:
            self.optimiser.load_state_dict(state["optimiser"])


def weights(student: nn.Module) -> dict[str, Tensor]:
    """The weights of a checkpoint, without the coder's tables, which are computed from the prior."""
    return {name: value for name, value in student.state_dict().items() if not name.startswith("prior._")}


def restore(student: nn.Module, stored: dict[str, Tensor]) -> None:
    """Load what `weights` returned; exits where names differ."""
    missing, unknown = student.load_state_dict(stored, strict=False)
    if unknown or any(not name.startswith("prior._") for name in missing):
        raise SystemExit(f"the checkpoint is of another network: {unknown or missing}")
