"""Training of a cheaper tail for an exported bundle, whose head, tables and packets stay: `python -m recipe tail`.

A `CheapTail` is distilled from the bundle's tail, which answers the same packets, and from the unsplit network, which sees
the photo. All randomness is a function of (seed, step): a resumed run on stored targets ends with the same bits.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import backbone, checkpoint, experiment, loss
from .backbone import SPLIT_GROUP, Taps
from .direct import DirectDecoder
from .features import image_layout
from .optim import Average, Muon
from .progress import Progress
from .segmenter import Segmenter
from .tail_targets import FreshTargets, StoredTargets, Teachers, store

FILE = "tail.pt"
SENSITIVITY_ROWS = 128  # on which the weights of the feature losses are measured
WARMUP = 50  # steps over which the learning rates rise
INITIAL_ROWS = 64  # on which the linear part is fitted


class CheapTail(nn.Module):
    """A `DirectDecoder` and what is behind it: the backbone from the split on, and the fusion of the segmentation tail.

    With `tail.behind_lr` the parts behind are trained, too, except depthwise convolutions, whose gradients would take most of a
    processor's time; without, they stay those of the bundle.
    """

    def __init__(self, config: dict, teachers: Teachers):
        super().__init__()
        plan = config["tail"]
        sizes = {key: plan[key] for key in ("width", "blocks", "kind", "finish", "expansion", "kernel") if key in plan}
        self.decoder = DirectDecoder(config["head"]["latent"], teachers.net, **sizes)
        self.net = copy.deepcopy(teachers.net)
        self.net.stem = nn.Identity()
        for index in range(SPLIT_GROUP):
            self.net.groups[index] = nn.Identity()
        self.fusion = copy.deepcopy(teachers.segmenter.fusion)

    def behind(self) -> list[nn.Parameter]:
        """The parameters behind the decoder that can be trained."""
        layers = [part for part in (*self.net.modules(), *self.fusion.modules()) if isinstance(part, (nn.Conv2d, nn.Linear))]
        return [p for layer in layers if getattr(layer, "groups", 1) == 1 for p in (layer.weight, layer.bias)]

    def segmenter(self) -> Segmenter:
        """The segmentation tail of these parts."""
        found = Segmenter(self.net)
        found.fusion = self.fusion
        return found

    def forward(self, latent: Tensor, step: Tensor) -> tuple[Tensor, Taps]:
        """Split features, and everything behind them."""
        split = self.decoder(latent, step)
        return split, self.net.back(split)


def load(config: dict, work: Path, teachers: Teachers) -> CheapTail:
    """The averaged weights of WORK/tail.pt."""
    found = CheapTail(config, teachers)
    found.load_state_dict(checkpoint.load(work / FILE)["average"])
    return found.eval().requires_grad_(False).to(teachers.device, memory_format=torch.channels_last)


def step_of(work: Path) -> int:
    """Steps that WORK/tail.pt was trained for."""
    return checkpoint.load(work / FILE)["step"]


def plan_of(config: dict, device: torch.device) -> dict:
    """The table [tail], on a GPU with the changes of [tail.gpu]."""
    plan = {key: value for key, value in config["tail"].items() if key != "gpu"}
    return experiment.merged(plan, config["tail"].get("gpu", {})) if device.type == "cuda" else plan


def device_of() -> torch.device:
    """A GPU if PyTorch finds one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def precision(config: dict) -> torch.dtype | None:
    """The type of mixed precision, None for f32."""
    name = config["tail"].get("precision", "f32")
    if name not in ("f32", "bf16"):
        raise SystemExit(f"tail.precision is {name}: known are f32 and bf16")
    return torch.bfloat16 if name == "bf16" else None


class TailTrainer:
    """The decoder in training, its optimisers, and the source of its targets."""

    def __init__(self, config: dict, work: Path, source: Path | None):
        self.device = device_of()
        self.config, self.plan, self.work = config, plan_of(config, self.device), work
        self.teachers = Teachers(config, self.device, precision(config))
        if self.device.type == "cuda":
            self.source = FreshTargets(config, source, self.teachers)
        else:
            if source is not None:
                store(config, work / "tail-targets", source, self.teachers)
            self.source = StoredTargets(work / "tail-targets")
        self.weights = self.sensitivity()
        torch.manual_seed(config["seed"])  # for the decoder's first weights
        self.tail = CheapTail(config, self.teachers).to(self.device, memory_format=torch.channels_last)
        self.step = 0
        decoder = self.tail.decoder
        kernels = [kernel for part in decoder.blocks for kernel in part.kernels()]
        transform = list(decoder.shortcut.parameters())
        listed = {id(p) for p in (*kernels, *transform)}
        inner = [p for p in decoder.parameters() if id(p) not in listed and p.requires_grad]
        groups = [{"params": inner, "scale": 1.0}, {"params": transform, "scale": 0.1}]
        if self.plan["behind_lr"]:
            behind = [p.requires_grad_() for p in self.tail.behind()]
            groups.append({"params": behind, "scale": self.plan["behind_lr"] / self.plan["adam_lr"]})
        self.adam = torch.optim.Adam(groups, 0.0, betas=(0.9, 0.99))
        self.muon = Muon(kernels, 0.0)
        self.average = Average(self.tail, self.plan["ema_decay"])

    def sensitivity(self) -> dict[str, Tensor]:
        """Weights of the channels at each stride, computed once: WORK/tail-sensitivity.pt."""
        path = self.work / "tail-sensitivity.pt"
        if not path.is_file():
            rows = Drawn(self.source, SENSITIVITY_ROWS) if isinstance(self.source, FreshTargets) else self.source
            net = backbone.load(self.config["backbone"]["name"])  # on the processor, as are the random numbers
            checkpoint.save(path, loss.sensitivity(net, rows, SENSITIVITY_ROWS, self.config["seed"]))
        stored = checkpoint.load(path, self.device)
        return {name: stored[name] for name in loss.PLACES}

    def initialise(self) -> None:
        """Fit the linear part of the decoder to the features in front of the kept blocks."""
        batch = self.source.draw(np.random.default_rng([self.config["seed"], 1]), INITIAL_ROWS)
        latent, _ = self.teachers.latent(batch["symbols"], batch["level"])
        decoder = self.tail.decoder.cpu()
        decoder.initialise(latent.cpu(), preimage(decoder.finish, batch["split"].float().cpu()))
        self.tail.to(self.device, memory_format=torch.channels_last)
        self.average = Average(self.tail, self.plan["ema_decay"])

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every term of the loss, each a mean over the batch; in the first steps that of the split features only."""
        latent = self.teachers.latent(batch["symbols"], batch["level"])
        shallow = self.step < self.plan["shallow_steps"]
        with self.teachers.autocast():
            split, taps = (self.tail.decoder(*latent), None) if shallow else self.tail(*latent)
        found = {"split": loss.distance(split, batch["split"], self.weights["split"]).mean()}
        if shallow:
            return found
        found["stride16"] = loss.distance(taps.stride16, batch["stride16"], self.weights["stride16"]).mean()
        found["stride32"] = loss.distance(taps.stride32, batch["stride32"], self.weights["stride32"]).mean()
        found["logits"] = loss.divergence(taps.logits, batch["logits"]).mean()
        found["unsplit32"] = loss.distance(taps.stride32, batch["unsplit32"], self.weights["stride32"]).mean()
        found["unsplit"] = loss.divergence(taps.logits, batch["unsplit"]).mean()
        rows = batch["frame"].nonzero()[:, 0]
        if len(rows):
            with self.teachers.autocast():
                wanted = self.teachers.segmenter.fusion(*(batch[name][rows] for name in ("split", "stride16", "stride32")))
                scores = self.tail.fusion(split[rows], taps.stride16[rows], taps.stride32[rows])
            pixels = F.kl_div(scores.float().log_softmax(1), wanted.float().log_softmax(1), reduction="none", log_target=True).sum(1)
            found["mask"] = pixels.mean((1, 2)).sum() / len(split)
        return found

    def advance(self, passed: float | None = None) -> dict[str, float]:
        """Make one step; returns the terms of the loss. `passed` is the share of the training that is over, by default in steps."""
        plan = self.plan
        rng = np.random.default_rng([self.config["seed"], 2, self.step])
        batch = {name: value.to(self.device) for name, value in self.source.draw(rng, plan["batch"]).items()}
        batch["symbols"] = self.cut_some(rng, batch)
        terms = self.losses(batch)
        total = sum(plan["loss_weights"][name] * value for name, value in terms.items())
        factor = self.rate(self.step / plan["steps"] if passed is None else passed)
        for group in self.adam.param_groups:
            group["lr"] = plan["adam_lr"] * factor * group["scale"]
        for group in self.muon.param_groups:
            group["lr"] = plan["muon_lr"] * factor
        self.adam.zero_grad()
        self.muon.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_([p for group in self.adam.param_groups for p in group["params"]], 1.0)
        self.adam.step()
        self.muon.step()
        self.average.update(self.tail)
        self.step += 1
        return {name: value.item() for name, value in terms.items()}

    def cut_some(self, rng: np.random.Generator, batch: dict[str, Tensor]) -> Tensor:
        """The batch's symbols, a share of `tail.cut` of them from packets that were cut; longer ones are drawn more often."""
        sizes, level = self.teachers.group_sizes, batch["level"]
        count = len(level)
        groups = np.full(count, len(sizes) or 1)
        if len(sizes) > 1:
            ends = np.cumsum(sizes)[:-1]
            drawn = 1 + rng.choice(len(ends), count, p=ends / ends.sum())
            groups = np.where(rng.random(count) < self.plan["cut"], drawn, groups)
        return image_layout(self.teachers.cut(batch["symbols"], level, torch.from_numpy(groups).to(self.device)))

    def rate(self, passed: float) -> float:
        """Factor of the learning rates: warm-up, constant, then linear decay over the last `decay_share` of the training."""
        return min(1.0, (self.step + 1) / WARMUP) * max(0.01, min(1.0, (1 - passed) / self.plan["decay_share"]))

    def save(self) -> None:
        """Write WORK/tail.pt."""
        state = {"step": self.step, "tail": self.tail.state_dict(), "adam": self.adam.state_dict(), "muon": self.muon.state_dict()}
        checkpoint.save(self.work / FILE, state | {"average": self.average.values, "average_steps": self.average.steps})

    def resume(self) -> None:
        """Read what `save` wrote."""
        state = checkpoint.load(self.work / FILE, self.device)
        self.step = state["step"]
        self.tail.load_state_dict(state["tail"])
        self.adam.load_state_dict(state["adam"])
        self.muon.load_state_dict(state["muon"])
        self.average.values, self.average.steps = state["average"], state["average_steps"]


class Drawn:
    """A fixed set of rows of a source of new crops, as `loss.sensitivity` reads it."""

    def __init__(self, source: FreshTargets, count: int):
        found = source.draw(np.random.default_rng(0), count)
        self.count, self.found = count, {name: value.cpu().float() for name, value in found.items()}

    def batch(self, index: np.ndarray, fields: tuple[str, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Symbols and `fields` of the rows `index`."""
        rows = torch.from_numpy(np.sort(index))
        return self.found["symbols"][rows], {name: self.found[name][rows] for name in fields}


def preimage(blocks: nn.Sequential, wanted: Tensor, rounds: int = 12) -> Tensor:
    """Features that the residual `blocks` map to about `wanted`, by fixed-point iteration; damped, so that it stays bounded."""
    found = wanted.clone()
    with torch.no_grad():
        for _ in range(rounds):
            found += 0.5 * (wanted - blocks(found))
    return found


def run(config: dict, work: Path, source: Path | None, resume: bool, minutes: float | None = None) -> None:
    """Train up to step `tail.steps`, or for so many minutes, and leave WORK/tail.pt; continues from there with `resume`.

    The learning rates decay at the end of either.
    """
    work.mkdir(parents=True, exist_ok=True)
    trainer = TailTrainer(config, work, source)
    if resume and (work / FILE).is_file():
        trainer.resume()
    else:
        trainer.initialise()
        trainer.save()
    plan, began, passed = trainer.plan, time.monotonic(), None
    progress, smooth = Progress("tail", plan["steps"], trainer.step, every=30), {}
    while (trainer.step < plan["steps"]) if minutes is None else ((passed or 0.0) < 1):
        passed = None if minutes is None else (time.monotonic() - began) / (60 * minutes)
        for name, value in trainer.advance(passed).items():
            smooth[name] = smooth.get(name, value) + 0.02 * (value - smooth.get(name, value))
        if trainer.step % plan["save_every"] == 0:
            trainer.save()
        progress.step(trainer.step, " ".join(f"{name} {value:.4f}" for name, value in smooth.items()))
    trainer.save()
    print(f"{work / FILE}: {trainer.step} steps", flush=True)
