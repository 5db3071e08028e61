"""New context tables for an exported bundle, fitted on training crops: `python -m recipe update-context`.

Head, tails and all other tables stay as they are, so no checkpoint is needed. Everything that depends on the context
tables is written again: the vectors' packets, the packet sizes in manifest and card, those in the results, and the early exit.
The ladders of tasks are not: their sizes are the runtime's, which prints them with `narrows-bench evaluate --groups --all-levels`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from . import bundle_head, context, data, early_exit, manifest, measure, packet, tables
from .check import signed_image
from .progress import Progress


class HeadSessions:
    """The integer head of a bundle, one ONNX Runtime session per level."""

    def __init__(self, folder: Path, entries: dict):
        self.sessions = [bundle_head.session_at(folder / entries["head"]["file"], level["gain"]) for level in entries["level"]]
        self.input = entries["head"]["input"]

    def symbols(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Symbols i8 [C,h,w] of each level for pixels u8 [H,W,3]."""
        image = signed_image(pixels)[None]
        return [session.run(None, {self.input: image})[0][0] for session in self.sessions]

    def all_symbols(self, name: str, images: list[Callable[[], np.ndarray]]) -> list[list[np.ndarray]]:
        """Symbols of every image at every level; an image is a function that returns its pixels."""
        progress, found = Progress(name, len(images)), []
        for number, image in enumerate(images):
            found.append(self.symbols(image()))
            progress.step(number + 1)
        return found


def run(config: dict, source: Path, folder: Path, results: Path) -> None:
    """Fit the context tables of the bundle at `folder` again and write everything that follows from them."""
    entries = manifest.read(folder)
    file = folder / entries["codec"]["tables"]
    before = tables.unpack(file.read_bytes())
    if before.context is None:
        raise SystemExit(f"{file} has no context tables: export the bundle again")
    heads = HeadSessions(folder, entries)
    crops = data.training_crops(config, source)
    chosen = np.random.default_rng(config["seed"]).permutation(len(crops))[: config["codec"]["table_crops"]]
    items = heads.all_symbols("crops", [crops[i] for i in chosen])
    symbols = [np.stack(level) for level in zip(*items, strict=True)]
    order = before.order or list(range(before.channels))
    after = replace(before, context=context.fit(symbols, order, entries["default_level"], before.precision))
    packed = after.pack()
    file.write_bytes(packed)
    write_packets(folder, entries, packed, before.channels)
    photos = [lambda photo=photo: data.photo_pixels(config, photo.image()) for photo in data.photos(config, source)[1]]
    camvid = data.Tar(source / config["data"]["camvid_val"])
    frames = [lambda name=name: data.frame(camvid, name)[0] for name in data.camvid(camvid)]
    photo_bytes, frame_bytes = (
        mean_bytes(after, heads.all_symbols(name, images)) for name, images in (("held-out photos", photos), ("frames", frames))
    )
    write_sizes(folder, photo_bytes, frame_bytes)
    if "exit" in entries.get("local", {}):
        early_exit.run(config, source, folder)
    publish(results / f"{entries['name']}.json", photo_bytes, frame_bytes)
    rounded = [[round(size) for size in sizes] for sizes in (photo_bytes, frame_bytes)]
    print(f"{file}: {len(packed)} bytes; photos {rounded[0]}, frames {rounded[1]}")
    if any("ladder" in task for task in entries["task"]):
        print("the ladders of the tasks are of the old tables: measure them again with `narrows-bench evaluate --groups --all-levels`")


def write_packets(folder: Path, entries: dict, packed: bytes, channels: int) -> None:
    """Write the packet of every vector with the tables file `packed`."""
    geometries, stride = [geometry["name"] for geometry in entries["geometry"]], entries["head"]["stride"]
    for vector in entries["vector"]:
        index = geometries.index(vector["geometry"])
        geometry = entries["geometry"][index]
        shape = (channels, geometry["height"] // stride, geometry["width"] // stride)
        symbols = np.frombuffer((folder / vector["symbols"]).read_bytes(), np.int8).reshape(shape)
        (folder / vector["packet"]).write_bytes(packet.encode(packed, index, vector["level"], symbols))


def mean_bytes(fitted: tables.Tables, items: list[list[np.ndarray]]) -> list[float]:
    """Mean packet size at each level of symbols that are listed by image, then by level."""
    return [
        float(np.mean([packet.expected_bytes(fitted, k, symbols) for symbols in level])) for k, level in enumerate(zip(*items, strict=True))
    ]


def write_sizes(folder: Path, photo_bytes: list[float], frame_bytes: list[float]) -> None:
    """Write the mean packet sizes of each level into card and manifest, and the digests anew."""
    path = folder / "CARD.md"
    rows = iter(zip(photo_bytes, frame_bytes, strict=True))

    def row(found: re.Match) -> str:
        photo, frame = next(rows)
        return f"{found[1]}{photo:.0f}{found[2]}{frame:.0f}{found[3]}"

    path.write_text(re.sub(r"(?m)^(\| \d+ \| [\d.]+ \| )\d+( \| [\d.]+% \| [\d.]+ \| )\d+( \| [\d.]+ \|)$", row, path.read_text()))
    entries = manifest.read(folder)
    for level, size in zip(entries["level"], photo_bytes, strict=True):
        level["bytes"] = round(size)
    manifest.write(folder, entries)


def publish(path: Path, photo_bytes: list[float], frame_bytes: list[float]) -> None:
    """Write the new sizes into the figures of `curve`, if they were published."""
    if not path.is_file():
        return
    table = [
        row | {"bytes": round(photo, 1), "frame_bytes": round(frame, 1)}
        for row, photo, frame in zip(json.loads(path.read_text()), photo_bytes, frame_bytes, strict=True)
    ]
    measure.publish(table, path.with_suffix(""))
