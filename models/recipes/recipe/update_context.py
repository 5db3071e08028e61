"""The context tables of a finished bundle, fitted again on training crops: `python -m recipe refit`.

Head, tails and all other tables stay as they are, so no checkpoint is needed. The packets of the vectors, the bytes in
manifest and card, and those in the results follow.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import context, data, measure, packet, tables
from .progress import Progress
from .manifest import digest
from .task import head


class Heads:
    """The integer head of a bundle at every level."""

    def __init__(self, folder: Path, manifest: dict):
        self.sessions = [head(folder / manifest["head"]["file"], level["gain"]) for level in manifest["level"]]
        self.input = manifest["head"]["input"]

    def symbols(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Pixels u8 [H,W,3] to symbols i8 [C,h,w] of each level."""
        image = (pixels.astype(np.int16) - 128).astype(np.int8)[None]
        return [session.run(None, {self.input: image})[0][0] for session in self.sessions]

    def all(self, name: str, images: list) -> list[list[np.ndarray]]:
        """Symbols of each image, which is a function that gives pixels, at each level."""
        progress, found = Progress(name, len(images)), []
        for number, image in enumerate(images):
            found.append(self.symbols(image()))
            progress.step(number + 1)
        return found


def run(config: dict, source: Path, folder: Path, results: Path) -> None:
    manifest = tomllib.loads((folder / "manifest.toml").read_text())
    file = folder / manifest["codec"]["tables"]
    before = tables.unpack(file.read_bytes())
    if before.context is None:
        raise SystemExit(f"{file} has no section of contexts: export the bundle again")
    heads = Heads(folder, manifest)
    crops = data.training_crops(config, source)
    chosen = np.random.default_rng(config["seed"]).permutation(len(crops))[: config["codec"]["table_crops"]]
    items = heads.all("crops", [crops[i] for i in chosen])
    symbols = [np.stack(level) for level in zip(*items, strict=True)]
    order = before.order or list(range(before.channels))
    made = replace(before, context=context.fit(symbols, order, manifest["default_level"], before.precision))
    packed = made.pack()
    file.write_bytes(packed)
    geometries = [geometry["name"] for geometry in manifest["geometry"]]
    for vector in manifest["vector"]:
        geometry = manifest["geometry"][geometries.index(vector["geometry"])]
        stride = manifest["head"]["stride"]
        shape = (before.channels, geometry["height"] // stride, geometry["width"] // stride)
        kept = np.frombuffer((folder / vector["symbols"]).read_bytes(), np.int8).reshape(shape)
        coded = packet.encode(packed, geometries.index(vector["geometry"]), vector["level"], kept)
        (folder / vector["packet"]).write_bytes(coded)
    photos = [lambda photo=photo: measure.fitted(config, photo.image()) for photo in data.photos(config, source)[1]]
    camvid = data.Tar(source / config["data"]["camvid_val"])
    frames = [lambda name=name: data.frame(camvid, name)[0] for name in data.camvid(camvid)]
    near, far = (means(made, heads.all(name, images)) for name, images in (("held-out photos", photos), ("frames", frames)))
    tell(folder, manifest, near, far)
    show(results / f"{manifest['name']}.json", near, far)
    print(f"{file}: {len(packed)} bytes; photos {[round(size) for size in near]}, frames {[round(size) for size in far]}")


def means(made: tables.Tables, items: list[list[np.ndarray]]) -> list[float]:
    """Mean bytes of a packet at each level."""
    return [float(np.mean([packet.size(made, k, symbols) for symbols in level])) for k, level in enumerate(zip(*items, strict=True))]


def tell(folder: Path, manifest: dict, near: list[float], far: list[float]) -> None:
    """Card and manifest."""
    path = folder / "CARD.md"
    rows = iter(zip(near, far, strict=True))

    def row(found: re.Match) -> str:
        photo, frame = next(rows)
        return f"{found[1]}{photo:.0f}{found[2]}{frame:.0f}{found[3]}"

    path.write_text(re.sub(r"(?m)^(\| \d+ \| [\d.]+ \| )\d+( \| [\d.]+% \| [\d.]+ \| )\d+( \| [\d.]+ \|)$", row, path.read_text()))
    path = folder / "manifest.toml"
    sizes = iter(near)
    body, _ = path.read_text().split("\n[digests]\n")
    body = re.sub(r"(?m)^bytes = \d+$", lambda _: f"bytes = {next(sizes):.0f}", body)
    digests = "\n".join(f'"{name}" = "{digest(folder / name)}"' for name in manifest["digests"])
    path.write_text(f"{body}\n[digests]\n{digests}\n")


def show(path: Path, near: list[float], far: list[float]) -> None:
    """The figures of `curve`, if they are there."""
    if not path.is_file():
        return
    table = [
        row | {"bytes": round(photo, 1), "frame_bytes": round(frame, 1)}
        for row, photo, frame in zip(json.loads(path.read_text()), near, far, strict=True)
    ]
    measure.publish(table, path.with_suffix(""))
