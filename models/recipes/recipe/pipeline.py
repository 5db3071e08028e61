"""Commands of several steps: a bundle from its config, the parts of a training, and both kinds of measurement."""

from __future__ import annotations

from pathlib import Path

from . import calibrate, classify, experiment, export, features, measure, train, train_segmenter
from .baselines import measure as baseline_measure
from .baselines import train as baseline_train


def make(config: dict, source: Path, work: Path, bundle: Path, results: Path, reference: bool = False) -> None:
    """Everything from a config to its checked bundle, in the order of dependence; every step continues where it stopped."""
    if experiment.is_baseline(config):
        raise SystemExit(f"{config['name']} is a baseline: it is trained and measured, but there is no bundle of it")
    features.run(config, work / "features", source)
    train_parts(config, work, source, True, ("split", "classify"))
    if "packet_bytes" in config["levels"] and not calibrate.is_calibrated(work):
        measure.photos(config, work, source)
        calibrate.run(config, work, source)
    train_parts(config, work, source, True, ("segment", "adapt"))
    measure_images(config, work, source, "both")
    measure.curve(config, work, results)
    export.run(config, work, source, bundle, reference=reference)


def train_parts(config: dict, work: Path, source: Path | None, resume: bool, parts: tuple[str, ...]) -> None:
    """Train the named parts of our own system."""
    if "split" in parts:
        train.run(config, work, resume, source)
    if "classify" in parts and "classify" in config:
        classify.run(config, work, resume)
    if "segment" in parts:
        train_segmenter.train(config, work, source, resume)
    if "adapt" in parts:
        train_segmenter.adapt(config, work, source, resume)


def train_baseline(
    config: dict, work: Path, source: Path | None, resume: bool, parts: tuple[str, ...], setting: float | None = None
) -> None:
    """Train a baseline: `split` its own stages (one setting or the sweep), `adapt` the segmentation tail."""
    if "split" in parts:
        baseline_train.run(config, work, resume, setting)
    if "adapt" in parts:
        baseline_measure.adapt(config, work, source, resume)


def measure_images(config: dict, work: Path, source: Path, images: str) -> None:
    """Measure on `photos`, `frames` or `both`."""
    if experiment.is_baseline(config):
        baseline_measure.run(config, work, source, images)
        return
    if images in ("both", "photos"):
        measure.photos(config, work, source)
    if images in ("both", "frames"):
        measure.frames(config, work, source)
