"""What the head's frame gate sees: distances of features under noise, movement and new objects: `python -m recipe gate`.

The gate of `narrows-head run --gate` keeps an answer while the features of a frame are near those of the last answered frame. This
measures, on held-out photos with known changes and on CamVid's training films, how far each change moves the features, and how
often the class of the split stays the same. The distance of `--gate auto` is chosen on it: see ../results/README.md.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from . import bundle_head, data, manifest
from .check import session, signed_image
from .early_exit import geometry_of
from .progress import Progress

TILE = 4  # positions of the latent, both ways, as in head/src/policy/gate.rs
AUTO = 0.3  # of `--gate auto`
SENSOR = 1.5  # standard deviation of the noise of every frame, in grey levels
PHOTOS = 50
MARGIN = 16  # pixels around the crop that shifts can show


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The mean absolute difference of symbols [C,h,w] in the tile where it is largest; the last tile takes the rest of its side."""
    moved = np.abs(first.astype(np.int16) - second).mean(0)
    rows, columns = ([*range(0, max(size // TILE, 1) * TILE, TILE), size][:-1] for size in moved.shape)
    sums, counts = (np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1) for values in (moved, np.ones_like(moved)))
    return float((sums / counts).max())


def noisy(pixels: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Pixels with Gaussian noise of this standard deviation in grey levels."""
    return np.clip(np.rint(pixels + rng.normal(0, deviation, pixels.shape)), 0, 255).astype(np.uint8)


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Pixels after JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def changes(wide: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray]]:
    """Every change of a still scene by its name: `wide` is the scene with a margin, `other` another scene without one."""
    side = wide.shape[0] - 2 * MARGIN
    still = wide[MARGIN:-MARGIN, MARGIN:-MARGIN]
    for deviation in (1, 2, 4, 8):
        yield f"noise {deviation}", noisy(still, deviation, rng)
    for quality in (90, 75):
        yield f"JPEG {quality}", compressed(noisy(still, SENSOR, rng), quality)
    for levels in (5, 10, 20):
        yield f"brighter {levels}", noisy(np.minimum(still.astype(np.int16) + levels, 255), SENSOR, rng)
    for pixels in (1, 2, 4, 8, 16):
        yield f"shift {pixels}", noisy(wide[MARGIN:-MARGIN, MARGIN + pixels :][:, :side], SENSOR, rng)
    for size in (16, 32, 64, 112):
        top, left = rng.integers(0, side - size + 1, 2)
        changed = still.copy()
        changed[top : top + size, left : left + size] = other[top : top + size, left : left + size]
        yield f"object {size}", noisy(changed, SENSOR, rng)
    yield "another scene", noisy(other, SENSOR, rng)


def place(name: str) -> tuple[str, int]:
    """The film of a CamVid frame and its number in it, of names such as 0006R0_f00960.jpg."""
    film, number = name.split("_")
    return film, int("".join(filter(str.isdigit, number)))


def run(config: dict, source: Path, folder: Path, results: Path) -> None:
    """Measure the bundle at `folder` at its default level; writes RESULTS/NAME-gate.csv."""
    entries = manifest.read(folder)
    task = next(task for task in entries["task"] if task["kind"] == "classify")
    geometry, level = geometry_of(entries, task), entries["level"][entries["default_level"]]
    head, tail = bundle_head.session_at(folder / entries["head"]["file"], level["gain"]), session(folder / task["tail"])
    step, rng = np.float32(level["step"]), np.random.default_rng(config["seed"])
    distances, same = defaultdict(list), defaultdict(list)

    def symbols(pixels: np.ndarray) -> np.ndarray:
        return head.run(None, {entries["head"]["input"]: signed_image(pixels)[None]})[0][0]

    def answer(found: np.ndarray) -> int:
        inputs = {task["latent"]: found[None].astype(np.float32) * step, task["step"]: step[None]}
        return int(tail.run([task["output"]], inputs)[0][0].argmax())

    side = geometry["width"]
    photos = data.photos(config, source)[1][:PHOTOS]
    scenes = [np.asarray(data.fit_photo(photo.image(), side + 4 * MARGIN, side + 2 * MARGIN), np.uint8) for photo in photos]
    progress = Progress("photos", len(scenes))
    for number, scene in enumerate(scenes):
        before = symbols(noisy(scene[MARGIN:-MARGIN, MARGIN:-MARGIN], SENSOR, rng))
        other = scenes[(number + 1) % len(scenes)][MARGIN:-MARGIN, MARGIN:-MARGIN]
        for name, pixels in changes(scene, other, rng):
            after = symbols(pixels)
            distances[name].append(distance(before, after))
            same[name].append(answer(before) == answer(after))
        progress.step(number + 1)
    films = data.Tar(source / config["data"]["camvid_train"])
    names = films.names(".jpg")
    for first, second in itertools.pairwise(names):
        (film, at), (next_film, then) = (place(name) for name in (first, second))
        if film == next_film and then - at == 30:
            pair = [symbols(np.asarray(films.image(name), np.uint8)) for name in (first, second)]
            distances["a second of driving"].append(distance(*pair))
    results.mkdir(parents=True, exist_ok=True)
    with (results / f"{entries['name']}-gate.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["change", "frames", "distance_p5", "distance_p50", "distance_p95", "kept", "same_class"])
        for name, values in distances.items():
            quantiles = [round(float(np.quantile(values, q)), 3) for q in (0.05, 0.5, 0.95)]
            kept = round(float(np.mean(np.array(values) < AUTO)), 3)
            agreement = round(float(np.mean(same[name])), 3) if name in same else ""
            writer.writerow([name, len(values), *quantiles, kept, agreement])
    print((results / f"{entries['name']}-gate.csv").read_text())
