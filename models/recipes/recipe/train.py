"""Distillation in three stages, one process per core or one GPU, gradients averaged every step.

stage 1: match the split features. stage 2: deeper features and the answer too, through the frozen backbone.
stage 3: head and priors frozen, the decoder settles, and with `tail` the groups behind the split learn to answer what it gives.
Latents are rounded and the head runs on its int8 grid throughout, unless the config says otherwise.
All randomness is a function of (seed, step, rank): a resumed run goes on exactly where it stopped.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import spawn

from . import backbone, loss, init_from_bundle
from .features import FeatureCache
from .on_the_fly import OnTheFlyCrops
from .head import STRIDE
from .progress import Progress
from .optim import Average, Muon
from .rate import Controller
from .student import Student, autocast

SAVE_EVERY = 100
SPREAD_CROPS = 256  # that the ranges of the head's channels are read off
WARM_UP = 50
# Adam's rate for the decoder's inner layers, its outputs, the transform both sides start with, and the priors;
# train.lr_scales in a config
LR_SCALES = (1.0, 0.2, 0.1, 4.0)


def run(config: dict, work: Path, resume: bool, source: Path | None = None) -> None:
    """Train to the end of the last stage; `resume` continues from the last checkpoint. `source` is read where crops are fresh."""
    weights = work / "sensitivity.pt"
    if not weights.is_file():
        torch.set_num_threads(1)
        cache = FeatureCache(work / "features")
        net = backbone.of(config, work)
        found = loss.sensitivity(net, cache, 128, config["seed"], share=config["train"].get("fisher_share", 0.5))
        found["patch"] = loss.patch_metric(net, cache, found, config["train"]["loss_weights"], 64, config["seed"], stride_of(config))
        torch.save(found, weights)
    rendezvous = work / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    if config["threads"] == 1:
        worker(0, config, work, resume, source, rendezvous)
    else:
        spawn(worker, (config, work, resume, source, rendezvous), nprocs=config["threads"])


def stage_of(config: dict, step: int) -> tuple[int, float]:
    """Stage 1..3 of a step and how much of it has passed; stage 4 is the end."""
    for stage in (1, 2, 3):
        length = config["train"][f"stage{stage}"]["steps"]
        if step < length:
            return stage, step / length
        step -= length
    return 4, 0.0


def stride_of(config: dict) -> int:
    """Image pixels per latent position."""
    return config["head"].get("stride", STRIDE)


def total_steps(config: dict) -> int:
    return sum(config["train"][f"stage{stage}"]["steps"] for stage in (1, 2, 3))


def total_crops(config: dict) -> int:
    """Crops that all steps see, repeats counted."""
    plans = [config["train"][f"stage{stage}"] for stage in (1, 2, 3)]
    return sum(plan["steps"] * plan.get("batch", config["train"]["batch"]) for plan in plans)


class Trainer:
    """State of one rank; all ranks hold the same weights."""

    def __init__(self, config: dict, work: Path, rank: int, ranks: int, source: Path | None = None):
        self.config, self.work, self.rank, self.ranks = config, work, rank, ranks
        self.device = torch.device("cuda" if "on_the_fly" in config and torch.cuda.is_available() else "cpu")
        torch.manual_seed(config["seed"])
        self.net = backbone.of(config, work).to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cuda":
            self.net.half()
        self.source = OnTheFlyCrops(config, source, self.net, self.device) if "on_the_fly" in config else FeatureCache(work / "features")
        self.student = Student(config).to(self.device)
        self.tail: backbone.Backbone | None = None  # the network behind the split, where it learns
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == "cuda")
        self.weights = torch.load(work / "sensitivity.pt", weights_only=True, map_location=self.device)
        side = config["photo"]["side"] // stride_of(config)
        symbols, train = config["head"]["latent"] * side * side, config["train"]
        self.controller = Controller(config["levels"]["target_bytes"], symbols, train["rate_weight"], train.get("controller_gain", 0.02))
        self.step = 0
        self.student.to(memory_format=torch.channels_last)
        self.average = Average(self.student, config["train"]["ema_decay"])
        self.prepare()

    def start(self) -> None:
        """First weights, of the bundle that the config starts from or from the first crops, on the CPU."""
        pixels, metric, default = self.source.first(64).cpu(), self.weights["patch"].cpu(), self.config["levels"]["default"]
        student = self.student.cpu()
        if "init_from" in self.config["train"]:
            init_from_bundle.load(student, Path(self.config["train"]["init_from"]))
            student.levels.fit(student.head(pixels).detach())
        else:
            student.start_from(pixels, metric, self.controller.targets[0], default, self.net)
        student.to(self.device)
        self.average = Average(self.student, self.config["train"]["ema_decay"])

    def prepare(self) -> None:
        """New optimisers for the current stage."""
        stage, _ = stage_of(self.config, self.step)
        self.optimizer_start = self.step
        encoder_frozen = stage >= 3
        self.student.head.requires_grad_(not encoder_frozen).train(not encoder_frozen)
        self.student.levels.requires_grad_(not encoder_frozen)
        decoder, head, levels = self.student.decoder, self.student.head, self.student.levels
        kernels = [kernel.weight for b in (*decoder.before, *decoder.after) for kernel in (b.first, b.second)]
        chosen = {id(p) for p in kernels}
        transform = [*head.parameters(), *decoder.shortcut.parameters()]
        outputs = [p for part in (decoder.sketch, decoder.seen, decoder.leave) for p in part.parameters()]
        priors = list(levels.parameters())
        known = chosen | {id(p) for p in (*transform, *outputs, *priors)}
        rest = [p for p in self.student.parameters() if id(p) not in known]
        lr_scales = self.config["train"].get("lr_scales", LR_SCALES)
        groups = [{"params": part, "lr_scale": scale} for part, scale in zip((rest, outputs, transform, priors), lr_scales, strict=True)]
        for group in groups:
            group["params"] = [p for p in group["params"] if p.requires_grad]
        rate = self.config["train"][f"stage{min(stage, 3)}"]
        if stage == 3 and "tail_lr" in rate:
            self.unfreeze_tail()
            behind = (*self.tail.groups[backbone.SPLIT_GROUP :], self.tail.top, self.tail.classifier)
            groups.append(
                {
                    "params": [p for part in behind for p in part.requires_grad_().parameters()],
                    "lr_scale": rate["tail_lr"] / rate["adam_lr"],
                }
            )
        groups = [group for group in groups if group["params"]]
        self.muon = Muon(kernels, 0.0)
        self.adam = torch.optim.Adam(groups, 0.0, betas=(0.9, 0.99))
        self.parameters = kernels + [p for group in groups for p in group["params"]]

    def freeze_encoder(self) -> None:
        """The encoder's last form: averaged weights, every channel in its whole range, a prior for levels that no step drew."""
        self.student.load_state_dict(self.average.values)
        pixels = self.source.first(SPREAD_CROPS)
        self.student.head.equalise_ranges(pixels)
        idle = [level for level, share in enumerate(self.config["levels"]["probability"]) if not share]
        if idle:
            with torch.no_grad():
                latent = self.student.head.eval()(pixels)
            self.student.levels.fit(latent, idle)
        self.average = Average(self.student, self.config["train"]["ema_decay"])

    def unfreeze_tail(self) -> None:
        """The tail starts as the backbone."""
        if self.tail is None:
            self.tail = backbone.of(self.config, self.work).to(self.device, memory_format=torch.channels_last)
            self.tail_average = Average(self.tail, self.config["train"]["ema_decay"])

    def rates(self) -> tuple[float, float]:
        """Learning rates of Adam and Muon: warm-up, plateau, straight line down at the end of a stage."""
        stage, passed = stage_of(self.config, self.step)
        plan = self.config["train"][f"stage{stage}"]
        factor = min(1.0, (self.step - self.optimizer_start + 1) / WARM_UP)
        if passed > 1 - plan["decay_share"]:
            factor *= max(0.02, (1 - passed) / plan["decay_share"]) if plan["decay_share"] else 1.0
        return plan["adam_lr"] * factor, plan["muon_lr"] * factor

    def draw(self, fields: tuple[str, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Pixels, levels and the teacher's features of this rank's share of the batch."""
        rng = np.random.default_rng([self.config["seed"], self.step, self.rank])
        torch.manual_seed(int(rng.integers(2**31)))
        plan = self.config["train"][f"stage{stage_of(self.config, self.step)[0]}"]
        size = plan.get("batch", self.config["train"]["batch"]) // self.ranks
        level = rng.choice(len(self.config["levels"]["gains"]), size, p=self.config["levels"]["probability"])
        pixels, wanted = self.source.draw(rng, size, fields)
        return pixels, torch.from_numpy(level), wanted

    def noise(self) -> float:
        """How much of the rounding is uniform noise instead: fades over the first `noise` of stage 2."""
        stage, passed = stage_of(self.config, self.step)
        fade = self.config["train"].get("noise_fade", 0.0)
        return max(0.0, 1 - passed / fade) if fade and stage == 2 else float(fade > 0 and stage == 1)

    def losses(self) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
        """Loss of this rank, levels, bits per symbol and the terms for the log."""
        stage, _ = stage_of(self.config, self.step)
        deep = stage > 1
        pixels, level, wanted = self.draw(("split", "stride16", "stride32", "logits") if deep else ("split",))
        found, sketch, bits = self.student(pixels, level, self.net, self.noise())
        terms = {
            "sketch": (sketch - self.net.normalise(pixels)).square().mean((1, 2, 3)),
            "split": loss.distance(found, wanted["split"], self.weights["split"]),
        }
        if deep:
            with autocast(self.device):
                taps = (self.tail if stage == 3 and self.tail else self.net).back(found)
            terms["stride16"] = loss.distance(taps.stride16, wanted["stride16"], self.weights["stride16"])
            terms["stride32"] = loss.distance(taps.stride32, wanted["stride32"], self.weights["stride32"])
            terms["logits"] = loss.divergence(taps.logits, wanted["logits"])
        share = self.config["train"][f"stage{stage}"].get("loss_weights", self.config["train"]["loss_weights"])
        total = sum((share[name] if deep else 2.0) * value for name, value in terms.items())
        if stage < 3:
            total = total + torch.tensor(self.controller.weights, dtype=torch.float32)[level].to(self.device) * bits
        total = total * torch.tensor(self.config["levels"]["loss_weight"], dtype=torch.float32)[level].to(self.device)
        return total.mean(), level, bits.detach(), {name: value.detach().mean() for name, value in terms.items()}

    def advance(self) -> dict[str, float]:
        """One step on all ranks."""
        adam, muon = self.rates()
        for group in self.adam.param_groups:
            group["lr"] = adam * group["lr_scale"]
        for group in self.muon.param_groups:
            group["lr"] = muon
        total, level, bits, terms = self.losses()
        for p in self.parameters:
            p.grad = None
        self.scaler.scale(total).backward()
        for optimiser in (self.adam, self.muon):
            self.scaler.unscale_(optimiser)
        level, bits = self.synchronise(level, bits)
        torch.nn.utils.clip_grad_norm_([p for group in self.adam.param_groups for p in group["params"]], 1.0)
        for optimiser in (self.adam, self.muon):
            self.scaler.step(optimiser)
        self.scaler.update()
        if stage_of(self.config, self.step)[0] < 3:
            self.controller.update(level, bits)
        before = stage_of(self.config, self.step)[0]
        self.step += 1
        self.average.update(self.student)
        if self.tail is not None:
            self.tail_average.update(self.tail)
        if before < 3 <= stage_of(self.config, self.step)[0]:
            self.freeze_encoder()
            self.prepare()
        return {name: value.item() for name, value in terms.items()}

    def synchronise(self, level: Tensor, bits: Tensor) -> tuple[list[int], list[float]]:
        """Average gradients, the heads' activation peaks and gather the rates of all ranks."""
        if self.ranks == 1:
            return level.tolist(), bits.tolist()
        peaks = [layer.peak for layer in self.student.head.layers]
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        flat = torch.cat([g.reshape(-1) for g in grads] + [torch.stack(peaks)])
        dist.all_reduce(flat)
        flat /= self.ranks
        for p, part in zip(self.parameters, flat[: -len(peaks)].split([p.numel() for p in self.parameters]), strict=True):
            p.grad = part.view(p.shape)
        for peak, value in zip(peaks, flat[-len(peaks) :], strict=True):
            peak.copy_(value)
        table = torch.stack([level.float(), bits])
        tables = [torch.empty_like(table) for _ in range(self.ranks)]
        dist.all_gather(tables, table)
        joined = torch.cat(tables, 1)
        return joined[0].long().tolist(), joined[1].tolist()

    def save(self, path: Path) -> None:
        """Write aside and rename: a kill at any moment leaves a whole checkpoint."""
        state = {
            "step": self.step,
            "stage": stage_of(self.config, self.step)[0],
            "optimizer_start": self.optimizer_start,
            "student": self.student.state_dict(),
            "average": self.average.values,
            "average_steps": self.average.steps,
            "adam": self.adam.state_dict(),
            "muon": self.muon.state_dict(),
            "controller": self.controller.state(),
            "scaler": self.scaler.state_dict(),
        }
        if self.tail is not None:
            state |= {
                "tail": self.tail.state_dict(),
                "tail_average": self.tail_average.values,
                "tail_average_steps": self.tail_average.steps,
            }
        aside = path.with_suffix(".new")
        torch.save(state, aside)
        os.replace(aside, path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; if the config now puts its step into another stage, from the average, optimisers fresh."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        self.average.values, self.average.steps = state["average"], state["average_steps"]
        self.controller.load(state["controller"])
        if state.get("scaler"):  # empty in a checkpoint from a CPU
            self.scaler.load_state_dict(state["scaler"])
        if "tail" in state:
            self.unfreeze_tail()
            self.tail.load_state_dict(state["tail"])
            self.tail_average.values, self.tail_average.steps = state["tail_average"], state["tail_average_steps"]
        stage, _ = stage_of(self.config, self.step)
        if state["stage"] < 3 <= stage:
            self.freeze_encoder()
        elif state["stage"] != stage:
            self.student.load_state_dict(self.average.values)
            self.average.steps = 0
        self.prepare()
        if state["stage"] == stage:
            self.optimizer_start = state["optimizer_start"]
            self.adam.load_state_dict(state["adam"])
            self.muon.load_state_dict(state["muon"])


def worker(rank: int, config: dict, work: Path, resume: bool, source: Path | None, rendezvous: Path) -> None:
    ranks = config["threads"]
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous.resolve()}", rank=rank, world_size=ranks)
    trainer = Trainer(config, work, rank, ranks, source)
    checkpoint = work / "student.pt"
    if resume and checkpoint.is_file():
        trainer.load(checkpoint)
    else:
        trainer.start()
        if rank == 0:
            trainer.save(checkpoint)
    total = total_steps(config)
    progress = Progress("train", total, trainer.step, every=20)
    smooth: dict[str, float] = {}
    began = time.monotonic()
    while trainer.step < total:
        for name, value in trainer.advance().items():
            smooth[name] = smooth.get(name, value) + 0.03 * (value - smooth.get(name, value))
        if trainer.step % SAVE_EVERY == 0 or trainer.step == total:
            if isinstance(trainer.source, FeatureCache):
                trainer.source = FeatureCache(work / "features")
            if rank == 0:
                trainer.save(checkpoint)
        if rank == 0:
            progress.step(trainer.step, describe(trainer, smooth))
    if rank == 0:
        print(f"trained in {time.monotonic() - began:.0f} s: {checkpoint}", flush=True)
    if ranks > 1:
        dist.destroy_process_group()


def describe(trainer: Trainer, smooth: dict[str, float]) -> str:
    """Terms of the loss, then bytes, gain and rate weight of each level."""
    scale = trainer.config["head"]["latent"] * (trainer.config["photo"]["side"] // stride_of(trainer.config)) ** 2 / 8
    gains = trainer.student.levels.gains().tolist()
    terms = " ".join(f"{name} {value:.4f}" for name, value in smooth.items())
    rows = zip(trainer.controller.mean, gains, trainer.controller.weights, strict=True)
    return f"stage {stage_of(trainer.config, trainer.step)[0]} · {terms} · " + " ".join(
        f"{mean * scale:.0f}B/{gain:.2f}/{weight:.3f}" for mean, gain, weight in rows
    )
