"""Distillation in three stages, with one process per core or on one GPU; gradients are averaged over processes every step.

Stage 1 matches the split features. Stage 2 also matches deeper features and the class probabilities, through the frozen
backbone. Stage 3 freezes head and priors and trains the decoder alone; with `tail_lr` it also trains the block groups
behind the split. Latents are rounded and the head computes on its int8 grid in all stages, unless the config says otherwise.
All randomness is a function of (seed, step, rank), so a resumed run ends with the same bits as an uninterrupted one.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing import spawn

from . import backbone, checkpoint, init_from_bundle, loss, teacher
from .features import FeatureCache
from .head import STRIDE
from .on_the_fly import OnTheFlyCrops
from .optim import Average, Muon
from .progress import Progress
from .rate import Controller
from .student import Student, autocast

SAVE_EVERY = 100
RANGE_CROPS = 256  # on which the ranges of the head's channels are equalised
WARMUP = 50  # steps over which the learning rate rises at the start of a stage
# Factors on Adam's learning rate for the decoder's inner layers, its output layers, the transform that head and decoder are
# initialised with, and the priors; train.lr_scales in a config
LR_SCALES = (1.0, 0.2, 0.1, 4.0)


def run(config: dict, work: Path, resume: bool, source: Path | None = None) -> None:
    """Train to the end of the last stage and leave WORK/student.pt; `resume` continues from the last checkpoint.

    `source`, the folder with the photos, is needed where crops are cut on the fly.
    """
    weights = work / "sensitivity.pt"
    if not weights.is_file():
        torch.set_num_threads(1)
        cache = FeatureCache(work / "features")
        net = teacher.load(config, work)
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
    """Stage 1..3 of a step and the share of it that has passed; stage 4 after the last step."""
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
    """Steps of all stages."""
    return sum(config["train"][f"stage{stage}"]["steps"] for stage in (1, 2, 3))


def total_crops(config: dict) -> int:
    """Crops that all steps train on, repetitions included."""
    plans = [config["train"][f"stage{stage}"] for stage in (1, 2, 3)]
    return sum(plan["steps"] * plan.get("batch", config["train"]["batch"]) for plan in plans)


class Trainer:
    """Training state of one process (rank); all ranks hold the same weights."""

    def __init__(self, config: dict, work: Path, rank: int, ranks: int, source: Path | None = None):
        self.config, self.work, self.rank, self.ranks = config, work, rank, ranks
        self.device = torch.device("cuda" if "on_the_fly" in config and torch.cuda.is_available() else "cpu")
        torch.manual_seed(config["seed"])
        self.net = teacher.load(config, work).to(self.device, memory_format=torch.channels_last)
        if self.device.type == "cuda":
            self.net.half()
        self.source = OnTheFlyCrops(config, source, self.net, self.device) if "on_the_fly" in config else FeatureCache(work / "features")
        self.student = Student(config).to(self.device)
        self.tail: backbone.Backbone | None = None  # the trained network behind the split, in stage 3 with tail_lr
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.device.type == "cuda")
        self.weights = torch.load(work / "sensitivity.pt", weights_only=True, map_location=self.device)
        side = config["photo"]["side"] // stride_of(config)
        symbols, train = config["head"]["latent"] * side * side, config["train"]
        self.controller = Controller(config["levels"]["target_bytes"], symbols, train["rate_weight"], train.get("controller_gain", 0.02))
        self.step = 0
        self.student.to(memory_format=torch.channels_last)
        self.average = Average(self.student, config["train"]["ema_decay"])
        self.prepare()

    def initialise(self) -> None:
        """Set the first weights: of the bundle `train.init_from`, or fitted to the first crops. Runs on the CPU."""
        pixels, metric, default = self.source.first(64).cpu(), self.weights["patch"].cpu(), self.config["levels"]["default"]
        student = self.student.cpu()
        if "init_from" in self.config["train"]:
            init_from_bundle.load(student, Path(self.config["train"]["init_from"]))
            student.levels.fit(student.head(pixels).detach())
        else:
            student.initialise(pixels, metric, self.controller.targets[0], default, self.net)
        student.to(self.device)
        self.average = Average(self.student, self.config["train"]["ema_decay"])

    def prepare(self) -> None:
        """Create new optimisers for the parameters that the current stage trains."""
        stage, _ = stage_of(self.config, self.step)
        self.optimiser_start = self.step
        encoder_frozen = stage >= 3
        self.student.head.requires_grad_(not encoder_frozen).train(not encoder_frozen)
        self.student.levels.requires_grad_(not encoder_frozen)
        decoder, head, levels = self.student.decoder, self.student.head, self.student.levels
        kernels = [kernel.weight for b in (*decoder.before, *decoder.after) for kernel in (b.first, b.second)]
        chosen = {id(p) for p in kernels}
        transform = [*head.parameters(), *decoder.shortcut.parameters()]
        outputs = [p for part in (decoder.sketch, decoder.seen, decoder.leave) for p in part.parameters()]
        priors = list(levels.parameters())
        listed = chosen | {id(p) for p in (*transform, *outputs, *priors)}
        inner = [p for p in self.student.parameters() if id(p) not in listed]
        lr_scales = self.config["train"].get("lr_scales", LR_SCALES)
        groups = [{"params": part, "lr_scale": scale} for part, scale in zip((inner, outputs, transform, priors), lr_scales, strict=True)]
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
        """Fix the encoder: averaged weights, equalised channel ranges, and a fitted prior for levels that no step drew."""
        self.student.load_state_dict(self.average.values)
        pixels = self.source.first(RANGE_CROPS)
        self.student.head.equalise_ranges(pixels)
        undrawn = [level for level, probability in enumerate(self.config["levels"]["probability"]) if not probability]
        if undrawn:
            with torch.no_grad():
                latent = self.student.head.eval()(pixels)
            self.student.levels.fit(latent, undrawn)
        self.average = Average(self.student, self.config["train"]["ema_decay"])

    def unfreeze_tail(self) -> None:
        """Make the network behind the split trainable, starting from the backbone."""
        if self.tail is None:
            self.tail = teacher.load(self.config, self.work).to(self.device, memory_format=torch.channels_last)
            self.tail_average = Average(self.tail, self.config["train"]["ema_decay"])

    def learning_rates(self) -> tuple[float, float]:
        """Learning rates of Adam and Muon: linear warm-up, constant, linear decay over the last `decay_share` of a stage."""
        stage, passed = stage_of(self.config, self.step)
        plan = self.config["train"][f"stage{stage}"]
        factor = min(1.0, (self.step - self.optimiser_start + 1) / WARMUP)
        if passed > 1 - plan["decay_share"]:
            factor *= max(0.02, (1 - passed) / plan["decay_share"]) if plan["decay_share"] else 1.0
        return plan["adam_lr"] * factor, plan["muon_lr"] * factor

    def draw(self, fields: tuple[str, ...]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Pixels [N,3,H,W], levels i64 [N] and the teacher's `fields` of this rank's share of the batch."""
        rng = np.random.default_rng([self.config["seed"], self.step, self.rank])
        torch.manual_seed(int(rng.integers(2**31)))
        plan = self.config["train"][f"stage{stage_of(self.config, self.step)[0]}"]
        size = plan.get("batch", self.config["train"]["batch"]) // self.ranks
        level = rng.choice(len(self.config["levels"]["gains"]), size, p=self.config["levels"]["probability"])
        pixels, targets = self.source.draw(rng, size, fields)
        return pixels, torch.from_numpy(level), targets

    def noise(self) -> float:
        """Share of uniform noise in place of rounding, 0..1: fades out over the first `noise_fade` of stage 2; normally 0."""
        stage, passed = stage_of(self.config, self.step)
        fade = self.config["train"].get("noise_fade", 0.0)
        return max(0.0, 1 - passed / fade) if fade and stage == 2 else float(fade > 0 and stage == 1)

    def losses(self) -> tuple[Tensor, Tensor, Tensor, dict[str, float]]:
        """Loss of this rank's batch, its levels, bits per symbol, and the mean of every term."""
        stage, _ = stage_of(self.config, self.step)
        deep = stage > 1
        pixels, level, targets = self.draw(("split", "stride16", "stride32", "logits") if deep else ("split",))
        found, sketch, bits = self.student(pixels, level, self.net, self.noise())
        terms = {
            "sketch": (sketch - self.net.normalise(pixels)).square().mean((1, 2, 3)),
            "split": loss.distance(found, targets["split"], self.weights["split"]),
        }
        if deep:
            with autocast(self.device):
                taps = (self.tail if stage == 3 and self.tail else self.net).back(found)
            terms["stride16"] = loss.distance(taps.stride16, targets["stride16"], self.weights["stride16"])
            terms["stride32"] = loss.distance(taps.stride32, targets["stride32"], self.weights["stride32"])
            terms["logits"] = loss.divergence(taps.logits, targets["logits"])
        weights = self.config["train"][f"stage{stage}"].get("loss_weights", self.config["train"]["loss_weights"])
        total = sum((weights[name] if deep else 2.0) * value for name, value in terms.items())
        if stage < 3:
            total = total + torch.tensor(self.controller.weights, dtype=torch.float32)[level].to(self.device) * bits
        total = total * torch.tensor(self.config["levels"]["loss_weight"], dtype=torch.float32)[level].to(self.device)
        return total.mean(), level, bits.detach(), {name: value.detach().mean() for name, value in terms.items()}

    def advance(self) -> dict[str, float]:
        """Make one step, together with all ranks; returns the terms of this rank's loss."""
        adam, muon = self.learning_rates()
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
        """Average gradients and activation ranges over all ranks, and gather their levels and bits per symbol."""
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
        """Write a checkpoint."""
        state = {
            "step": self.step,
            "stage": stage_of(self.config, self.step)[0],
            "optimiser_start": self.optimiser_start,
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
        checkpoint.save(path, state)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        If its step belongs to another stage in the present config, training continues from the averaged weights with new
        optimisers.
        """
        state = checkpoint.load(path, self.device)
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
            self.optimiser_start = state["optimiser_start"]
            self.adam.load_state_dict(state["adam"])
            self.muon.load_state_dict(state["muon"])


def worker(rank: int, config: dict, work: Path, resume: bool, source: Path | None, rendezvous: Path) -> None:
    """Train as one rank; rank 0 writes checkpoints and progress. `rendezvous` is a file that the ranks share."""
    ranks = config["threads"]
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous.resolve()}", rank=rank, world_size=ranks)
    trainer = Trainer(config, work, rank, ranks, source)
    path = work / "student.pt"
    if resume and path.is_file():
        trainer.load(path)
    else:
        trainer.initialise()
        if rank == 0:
            trainer.save(path)
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
                trainer.save(path)
        if rank == 0:
            progress.step(trainer.step, describe(trainer, smooth))
    if rank == 0:
        print(f"trained in {time.monotonic() - began:.0f} s: {path}", flush=True)
    if ranks > 1:
        dist.destroy_process_group()


def describe(trainer: Trainer, smooth: dict[str, float]) -> str:
    """Progress text: the terms of the loss, then bytes, gain and rate weight of each level."""
    scale = trainer.config["head"]["latent"] * (trainer.config["photo"]["side"] // stride_of(trainer.config)) ** 2 / 8
    gains = trainer.student.levels.gains().tolist()
    terms = " ".join(f"{name} {value:.4f}" for name, value in smooth.items())
    rows = zip(trainer.controller.mean, gains, trainer.controller.weights, strict=True)
    return f"stage {stage_of(trainer.config, trainer.step)[0]} · {terms} · " + " ".join(
        f"{mean * scale:.0f}B/{gain:.2f}/{weight:.3f}" for mean, gain, weight in rows
    )
