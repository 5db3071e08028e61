"""The bundle's local network (models/BUNDLE.md, section 9): quantised, measured, and added to a bundle folder.

Nothing else of the bundle is needed or changed, so it can be added to one that is already exported.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from . import backbone, data, export, graph, vectors
from .progress import Progress
from .quantise import Calibration, Ranges
from .int8_network import Network

FILE, REFERENCE = "local.onnx", "reference-local.onnx"
BATCH = 8


def run(config: dict, source: Path, folder: Path, reference: bool) -> None:
    """Quantises, measures on the held-out photos, and writes everything into the bundle at `folder`."""
    torch.set_num_threads(config["threads"])
    net = backbone.load(config["local"]["name"])
    network = quantised(config, source, net)
    figures = measured(config, source, net, network)
    add(config, folder, net, network, figures, reference)


def fitted(config: dict, photos: list[data.Photo]) -> np.ndarray:
    c = config["local"]
    return np.stack([np.asarray(data.fit_photo(photo.image(), c["short_side"], c["side"]), np.uint8) for photo in photos])


@torch.inference_mode()
def quantised(config: dict, source: Path, net: backbone.Backbone) -> Network:
    """Calibrated on photos of the training side alone."""
    c = config["local"]
    every = data.photos(config, source)[0]
    photos = [photo for kind, count in c["calibration_photos"].items() for photo in [p for p in every if p.kind == kind][:count]]
    progress = Progress("ranges", len(photos))

    def batches():
        for first in range(0, len(photos), BATCH):
            yield fitted(config, photos[first : first + BATCH])
            progress.step(min(first + BATCH, len(photos)))

    ranges = Ranges(net, batches())
    return Calibration(net, ranges, fitted(config, photos[:: c["rounding_every"]]), c.get("seed", config["seed"])).run()


@torch.inference_mode()
def measured(config: dict, source: Path, net: backbone.Backbone, network: Network) -> dict:
    """Agreement with the float network on photos that neither training nor calibration saw."""
    held = data.photos(config, source)[1]
    agree, error, power = [], 0.0, 0.0
    progress = Progress("held-out photos", len(held))
    for first in range(0, len(held), BATCH):
        pixels = fitted(config, held[first : first + BATCH])
        wanted = net(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
        found = network.logits(pixels, torch.float32)
        agree += list(wanted.argmax(1) == found.argmax(1))
        error, power = error + float(((found - wanted) ** 2).sum()), power + float((wanted**2).sum())
        progress.step(len(agree))
    scenes = np.isin([photo.kind for photo in held], ("imagen", "bsds"))
    figures = {
        "photos": len(held),
        "agreement": float(np.mean(agree)),
        "agreement_scenes": float(np.mean(np.array(agree)[scenes])),
        "decibels": 10 * float(np.log10(power / error)),
    }
    print(figures)
    return figures


def add(config: dict, folder: Path, net: backbone.Backbone, network: Network, figures: dict, reference: bool) -> None:
    """Writes the network, its vectors and, if asked for, its f32 form; then the manifest and the card anew."""
    c = config["local"]
    side = c["side"]
    network.save(folder / FILE, side, side)
    if reference:
        graph.reference(folder / REFERENCE, net, lambda g, x: graph.classify(g, net, x), ("logits", ["n", 1000]))
    else:
        (folder / REFERENCE).unlink(missing_ok=True)
    listed = write_vectors(c, network, folder)
    block = [
        f'[local]\nfile = "{FILE}"\ninput = "image"\noutput = "logits"\ntask = "classify"',
        f'backbone = "EfficientNet-{c["name"].capitalize()}"\nwidth = {side}\nheight = {side}',
        f'short_side = {c["short_side"]}\nfilter = "bicubic"',
        f"macs = {network.macs(side, side)}\nparameters = {network.parameters()}",
    ]
    if reference:
        block.append(f'reference = {{ file = "{REFERENCE}", input = "image", output = "logits" }}')
    block += [f'[[local.vector]]\nname = "{n}"\nimage = "vectors/{n}.png"\nlogits = "vectors/{n}.logits"' for n in listed]
    describe(config, folder, network, figures)
    listing(folder, "\n".join(block))
    print(f"added {FILE} to {folder}: {(folder / FILE).stat().st_size / 1e6:.1f} MB")


def write_vectors(c: dict, network: Network, folder: Path) -> list[str]:
    """Sample photos and a pattern at the local size, with the exact logits."""
    images = {
        f"local-{path.stem}": np.asarray(data.fit_photo(Image.open(path).convert("RGB"), c["short_side"], c["side"]), np.uint8)
        for path in sorted(vectors.SAMPLES.glob("photo-*.png"))
    }
    images["local-pattern"] = vectors.pattern(c["side"], c["side"], 3)
    for name, pixels in images.items():
        Image.fromarray(pixels).save(folder / "vectors" / f"{name}.png", optimize=True)
        (folder / "vectors" / f"{name}.logits").write_bytes(network.logits(pixels[None])[0].astype("<f4").tobytes())
    return list(images)


def listing(folder: Path, block: str) -> None:
    """The manifest with this `[local]` in place of any other, and with the digests of what lies in the folder."""
    path = folder / "manifest.toml"
    body = path.read_text().partition("\n[digests]")[0]
    tables = re.split(r"\n(?=\[)", body)
    first, _, rest = tables[0].partition("\n")
    assert first.startswith("format = "), f"{path} does not begin with its format"
    kept = [table.rstrip("\n") for table in tables[1:] if not table.startswith(("[local]", "[[local."))]
    joined = "\n".join(table if table.startswith("[[vector.") else f"\n{table}" for table in kept)
    path.write_text(f"{export.FORMAT}\n{rest.rstrip()}\n{joined}\n\n{block}\n\n{export.digests(folder)}\n")


def describe(config: dict, folder: Path, network: Network, figures: dict) -> None:
    """The card's section on the local network, in place of any other."""
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
        weights=export.digest(weights),
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
parameters, ImageNet classes. Quantised after training by `models/recipes/recipe/quantise.py` on {photos} photos of the training
side ({kinds}); nothing was trained. On {photos_held} photos that calibration did not see it answers as the float network does on
{agreement:.1%} ({agreement_scenes:.1%} of the everyday scenes); logits are {decibels:.1f} dB above their error.

Weights: `{weights_name}`, Apache-2.0, SHA-256 `{weights}`.
"""
