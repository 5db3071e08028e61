"""The local network of a bundle (models/BUNDLE.md, section 9): quantisation, measurement, and addition to a bundle folder.

The other files of the bundle are neither needed nor changed, so it can be added to a bundle that is already exported.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import backbone, data, early_exit, graph, manifest, vectors
from .int8_network import Network
from .progress import Progress
from .quantise import Calibration, Ranges

FILE, REFERENCE = "local.onnx", "reference-local.onnx"
BATCH = 8


def run(config: dict, source: Path, folder: Path, reference: bool) -> None:
    """Quantise the network, measure it on the held-out photos, add it to the bundle at `folder` and calibrate its early exit.

    With `reference` its f32 form is added too.
    """
    torch.set_num_threads(config["threads"])
    net = backbone.load(config["local"]["name"])
    network = quantised(config, source, net)
    figures = measured(config, source, net, network)
    add(config, folder, net, network, figures, reference)
    early_exit.run(config, source, folder)


def batch_pixels(config: dict, photos: list[data.Photo]) -> np.ndarray:
    """Pixels u8 [N,side,side,3] at the local network's size."""
    c = config["local"]
    return np.stack([np.asarray(data.fit_photo(photo.image(), c["short_side"], c["side"]), np.uint8) for photo in photos])


@torch.inference_mode()
def quantised(config: dict, source: Path, net: backbone.Backbone) -> Network:
    """The quantised network, calibrated on training photos only."""
    c = config["local"]
    training = data.photos(config, source)[0]
    photos = [photo for kind, count in c["calibration_photos"].items() for photo in [p for p in training if p.kind == kind][:count]]
    progress = Progress("ranges", len(photos))

    def batches():
        for first in range(0, len(photos), BATCH):
            yield batch_pixels(config, photos[first : first + BATCH])
            progress.step(min(first + BATCH, len(photos)))

    ranges = Ranges(net, batches())
    return Calibration(net, ranges, batch_pixels(config, photos[:: c["rounding_every"]]), c.get("seed", config["seed"])).run()


@torch.inference_mode()
def measured(config: dict, source: Path, net: backbone.Backbone, network: Network) -> dict:
    """Agreement and signal-to-noise ratio of the logits against the float network, on the held-out photos."""
    held_out = data.photos(config, source)[1]
    agree, error, power = [], 0.0, 0.0
    progress = Progress("held-out photos", len(held_out))
    for first in range(0, len(held_out), BATCH):
        pixels = batch_pixels(config, held_out[first : first + BATCH])
        expected = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
        found = network.logits(pixels, torch.float32)
        agree += list(expected.argmax(1) == found.argmax(1))
        error, power = error + float(((found - expected) ** 2).sum()), power + float((expected**2).sum())
        progress.step(len(agree))
    scenes = np.isin([photo.kind for photo in held_out], ("imagen", "bsds"))
    figures = {
        "photos": len(held_out),
        "agreement": float(np.mean(agree)),
        "agreement_scenes": float(np.mean(np.array(agree)[scenes])),
        "decibels": 10 * float(np.log10(power / error)),
    }
    print(figures)
    return figures


def add(config: dict, folder: Path, net: backbone.Backbone, network: Network, figures: dict, reference: bool) -> None:
    """Write the network, its vectors and, with `reference`, its f32 form; then card and manifest."""
    c = config["local"]
    side = c["side"]
    network.save(folder / FILE, side, side)
    if reference:
        graph.reference(folder / REFERENCE, net, lambda g, x: graph.classify(g, net, x), ("logits", ["n", 1000]))
    else:
        (folder / REFERENCE).unlink(missing_ok=True)
    names = write_vectors(c, network, folder)
    entry = {
        "file": FILE,
        "input": "image",
        "output": "logits",
        "task": "classify",
        "backbone": f"EfficientNet-{c['name'].capitalize()}",
        "width": side,
        "height": side,
        "short_side": c["short_side"],
        "filter": "bicubic",
        "macs": network.macs(side, side),
        "parameters": network.parameters(),
    }
    if reference:
        entry["reference"] = {"file": REFERENCE, "input": "image", "output": "logits"}
    entry["vector"] = [{"name": name, "image": f"vectors/{name}.png", "logits": f"vectors/{name}.logits"} for name in names]
    describe(config, folder, network, figures)
    manifest.write(folder, manifest.read(folder) | {"local": entry})
    print(f"added {FILE} to {folder}: {(folder / FILE).stat().st_size / 1e6:.1f} MB")


def write_vectors(c: dict, network: Network, folder: Path) -> list[str]:
    """Write sample photos and a pattern at the local network's size, with the exact logits; returns their names."""
    images = {
        f"local-{path.stem}": np.asarray(data.fit_photo(Image.open(path).convert("RGB"), c["short_side"], c["side"]), np.uint8)
        for path in sorted(vectors.SAMPLES.glob("photo-*.png"))
    }
    images["local-pattern"] = vectors.pattern(c["side"], c["side"], 3)
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / "vectors" / f"{name}.png", optimize=True)
        (folder / "vectors" / f"{name}.logits").write_bytes(network.logits(pixels[None])[0].astype("<f4").tobytes())
    return list(images)


def describe(config: dict, folder: Path, network: Network, figures: dict) -> None:
    """Write the card's section on the local network, replacing an earlier one."""
    c = config["local"]
    weights = backbone.weights_path(c["name"])
    text = CARD.format(
        name=c["name"].capitalize(),
        macs=network.macs(c["side"], c["side"]) / 1e6,
        parameters=network.parameters() / 1e6,
        side=c["side"],
        short_side=c["short_side"],
        photos=sum(c["calibration_photos"].values()),
        kinds=", ".join(c["calibration_photos"]),
        weights_name=weights.name,
        weights=manifest.digest(weights),
        photos_held=figures["photos"],
        agreement=figures["agreement"],
        agreement_scenes=figures["agreement_scenes"],
        decibels=figures["decibels"],
    )
    path = folder / "CARD.md"
    parts = [part for part in re.split(r"\n(?=## )", path.read_text()) if not part.startswith("## Local network")]
    path.write_text("\n".join(parts).rstrip("\n") + "\n\n" + text)


CARD = """## Local network

`local.onnx`: EfficientNet-{name} at {side}x{side} (short side {short_side}) in exact int8, {macs:.0f} MMAC, {parameters:.2f} M
parameters, ImageNet classes. Quantised after training by `models/recipes/recipe/quantise.py` on {photos} training
photos ({kinds}); nothing was trained. Its top-1 class is the float network's on {agreement:.1%} of {photos_held} photos that
calibration did not use ({agreement_scenes:.1%} of the everyday scenes); its logits have a signal-to-noise ratio of {decibels:.1f} dB.

Weights: `{weights_name}`, Apache-2.0, SHA-256 `{weights}`.
"""
