"""CARD.md of a bundle: what it is, what it was made from, what was measured, limits and licences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from . import backbone, teacher
from .bundle_parts import BundleParts
from .features import FeatureCache
from .manifest import digest


@dataclass(frozen=True)
class BackboneCard:
    """What manifest and card say of a backbone."""

    name: str
    split: str  # "split behind …", after the name
    channels: int  # of the split features
    licence: str  # of its weights


def backbone_of(config: dict) -> BackboneCard:
    """The description of the backbone that a config names."""
    settings = config["backbone"]
    if teacher.is_custom(config):
        return BackboneCard(settings["source"], f"split behind {settings['split']}", settings["channels"], settings["licence"])
    name = f"EfficientNet-{settings['name'].capitalize()}"
    return BackboneCard(name, f"split behind block group {backbone.SPLIT_GROUP}, stride 8", 48, "Apache-2.0")


def write(parts: BundleParts, figures: dict, folder: Path, work: Path, source: Path) -> None:
    """Write CARD.md; `figures` are those of `measure.figures`, None where nothing was measured."""
    config, side = parts.config, parts.config["photo"]["side"]
    described = backbone_of(config)
    text = CARD.format(
        name=config["name"],
        backbone=described.name,
        split=described.split,
        channels=described.channels,
        macs=parts.student.head.macs(side, side) / 1e6,
        side=side,
        parameters=parts.student.head.parameters_count(),
        measured=measured(parts, figures),
        seed=config["seed"],
        steps=steps(config["train"]),
        crops=crops(config, work),
        machine=config["train"].get("machine", "on a processor"),
        note=f" {config['note']}" if "note" in config else "",
        inputs=inputs(config, source),
        licence=described.licence,
    )
    (folder / "CARD.md").write_text(text)


def measured(parts: BundleParts, figures: dict) -> str:
    """The table of all levels; with frames where the bundle has a segmentation task."""
    frames = parts.segmenter is not None
    header = ["level", "gain", "bytes, photos", "agreement", "KL", *(["bytes, frames", "mIoU"] if frames else [])]
    rows = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for index, gain in enumerate(parts.gains):
        cells = [str(index), f"{gain:.3f}"]
        for key, form in (("bytes", "{:.0f}"), ("agreement", "{:.1%}"), ("divergence", "{:.3f}")):
            cells.append(shown(figures[key][index], form))
        if frames:
            cells += [shown(figures["frame_bytes"][index], "{:.0f}"), shown(figures["miou"][index], "{:.3f}")]
        rows.append(f"| {' | '.join(cells)} |")
    text = f"{parts.config['data']['held_out']} photos that no training step used"
    if frames:
        text += ", and CamVid's 101 validation frames at 480x360"
    text += (
        ".\nAgreement is with the unsplit network's top-1 class, KL is of the class probabilities. "
        "Bytes are entire packets, header included."
    )
    if frames:
        text += f"\nUnsplit segmentation: mIoU {shown(figures['miou_unsplit'], '{:.3f}')}."
    return text + "\n\n" + "\n".join(rows)


def steps(train: dict) -> str:
    """Steps and crops per step of each training stage that has any."""
    plans = {stage: train[f"stage{stage}"] for stage in (1, 2, 3)}
    made = {stage: plan for stage, plan in plans.items() if plan["steps"]}
    return ", ".join(f"{plan['steps']} steps of {plan.get('batch', train['batch'])} crops in stage {stage}" for stage, plan in made.items())


def crops(config: dict, work: Path) -> str:
    """What the training crops were drawn from."""
    if "on_the_fly" in config:
        return "cut anew for every step from all photos that were not held out and CamVid's training frames"
    return f"drawn from {FeatureCache(work / 'features').count} training crops"


def inputs(config: dict, source: Path) -> str:
    """Table of the data files and weights with their digests; empty for a custom backbone, whose data is the user's."""
    if teacher.is_custom(config):
        return ""
    names = [*config["data"]["photos"], config["data"]["camvid_train"], config["data"]["camvid_val"]]
    files = [source / name for name in names] + [backbone.weights_path(config["backbone"]["name"])]
    rows = "\n".join(f"| `{file.name}` | `{digest(file)}` |" for file in files)
    return f"\n| file | SHA-256 |\n|---|---|\n{rows}\n"


def shown(value: float | None, form: str) -> str:
    """A figure, or that there is none."""
    return "not measured" if value is None else form.format(value)


CARD = """# {name}

{backbone} {split} ({channels} channels). The device runs an int8 encoder: {macs:.2f} MMAC at
{side}x{side}, {parameters} parameters. The server decodes the latent into an approximate image, computes the features of
the split with the frozen front of the backbone, corrects them, and runs the rest of the backbone.
One head serves every level; the level changes the last requantisation and the probability tables.

## Measured on held-out data

{measured}

## Made from

Recipe `{name}`, seed {seed}: {steps}, {crops}.
PyTorch, {machine}.{note}
{inputs}
The training data is not part of this folder. The images of the vectors are scikit-image's sample data and computed
patterns; `vectors/SOURCES.md` lists them with their licences.

## Limits

The features were trained to match on the training images only; other domains were not measured. Features of a shallow
split can be inverted to a recognisable image: treat a packet like the photo it was made from.

## Licences

Backbone weights: {licence}. Head, decoder, segmentation tail and tables: Apache-2.0 unless their maker decides otherwise.
"""
