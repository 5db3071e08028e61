"""One more task for a finished bundle, its head and tables untouched: `python -m recipe task NAME`.

The new tail is the classify tail with another last layer, fitted to what that tail pools from real packets' symbols and,
for the reference, from the unsplit pixels. Only the bundle folder is needed, no checkpoint.

Labels come from `[tasks.NAME]` of the config or from `--labels FILE.csv` (columns file, label).
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from . import data
from .check import session, signed
from .progress import Progress

WEIGHT_DECAY = 1e-3  # of the last layer, on features of unit variance


@dataclass
class Labelled:
    """Photos of one task with their classes."""

    pixels: list[np.ndarray]
    classes: np.ndarray


@dataclass
class OpenBundle:
    """The networks of a bundle, open: the head per level, the classify tail and the unsplit network down to the last layer."""

    folder: Path
    manifest: dict
    task: dict

    def __post_init__(self):
        self.levels = self.manifest["level"]
        self.geometry = next(g for g in self.manifest["geometry"] if g["name"] == self.task["geometry"])
        self.heads = [head(self.folder / self.manifest["head"]["file"], level["gain"]) for level in self.levels]
        self.tail = pooled(onnx.load(str(self.folder / self.task["tail"])), self.task["output"])
        self.reference = pooled(onnx.load(str(self.folder / self.task["reference"]["file"])), self.task["reference"]["output"])

    def symbols(self, pixels: np.ndarray, level: int) -> np.ndarray:
        image = (pixels.astype(np.int16) - 128).astype(np.int8)[None]
        return self.heads[level].run(None, {self.manifest["head"]["input"]: image})[0]

    def decoded(self, pixels: np.ndarray, level: int) -> np.ndarray:
        """Pooled features [C] behind a packet of this level."""
        step = np.float32(self.levels[level]["step"])
        feed = {self.task["latent"]: self.symbols(pixels, level).astype(np.float32) * step, self.task["step"]: step[None]}
        return self.tail.run(None, feed)[0][0]

    def unsplit(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pooled features [C] and logits of the unsplit network."""
        found, logits = self.reference.run(None, {self.task["reference"]["input"]: pixels[None]})
        return found[0], logits[0]


def open_bundle(folder: Path) -> OpenBundle:
    manifest = tomllib.loads((folder / "manifest.toml").read_text())
    task = next((t for t in manifest["task"] if t["kind"] == "classify" and "reference" in t), None)
    if task is None:
        raise SystemExit(f"{folder} has no classify task with a reference to build on")
    return OpenBundle(folder, manifest, task)


def head(path: Path, gain: float):
    """The head of one level: the last requantisation takes the gain."""
    model = onnx.load_model_from_string(signed(path))
    last = next(node for node in reversed(model.graph.node) if node.op_type == "QLinearConv")
    for stored in model.graph.initializer:
        if stored.name == last.input[6]:
            scale = numpy_helper.to_array(stored) / np.float32(gain)
            stored.CopyFrom(numpy_helper.from_array(scale.astype(np.float32), stored.name))
    return session(model.SerializeToString())


def last_layer(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    """The Gemm that makes the logits."""
    node = next((n for n in model.graph.node if output in n.output), None)
    if node is None or node.op_type != "Gemm":
        raise SystemExit(f"{output} is made by {node.op_type if node else 'nothing'}: only a last linear layer (Gemm) can be replaced")
    return node


def pooled(model: onnx.ModelProto, output: str):
    """A session that answers what the last layer reads, then the logits."""
    found = onnx.ValueInfoProto()
    found.name = last_layer(model, output).input[0]
    model.graph.output.insert(0, found)
    return session(model.SerializeToString())


def run(config: dict, source: Path, bundle: Path, out: Path, name: str, listed: Path | None, results: Path) -> None:
    """Label, fit, measure on held-out photos, and write the bundle with the task to `out`."""
    plan = config.get("tasks", {}).get(name, {})
    if not plan and listed is None:
        raise SystemExit(f"[tasks.{name}] is not in the config: add it or give --labels FILE.csv")
    whole = open_bundle(bundle)
    if name in [t["name"] for t in whole.manifest["task"]]:
        raise SystemExit(f"{bundle} already has a task {name}")
    names, train, held = labelled(config, source, whole, plan, listed)
    print(f"{name}: {', '.join(names)}; {len(train.pixels)} photos to train on, {len(held.pixels)} held out")
    rng = np.random.default_rng(config["seed"])
    decoded, unsplit = [], []
    progress = Progress("features", len(train.pixels))
    for number, pixels in enumerate(train.pixels):
        decoded.append(whole.decoded(pixels, int(rng.integers(len(whole.levels)))))
        unsplit.append(whole.unsplit(pixels)[0])
        progress.step(number + 1)
    layers = {
        "tail": fit(np.stack(decoded + unsplit), np.tile(train.classes, 2), len(names)),
        "reference": fit(np.stack(unsplit), train.classes, len(names)),
    }
    rows = measure(whole, held, layers)
    results.mkdir(parents=True, exist_ok=True)
    with (results / f"task-{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write(whole, out, name, names, layers, rows, plan.get("note", ""))
    print("\n".join(" ".join(f"{k} {v}" for k, v in row.items()) for row in rows))
    print(f"wrote {out}: head.onnx and tables.bin as they were")


def labelled(config: dict, source: Path, whole: OpenBundle, plan: dict, listed: Path | None) -> tuple[list[str], Labelled, Labelled]:
    """Class names, training and held-out photos."""
    training, held = data.photos(config, source)
    if listed:
        known = {row["file"]: row["label"] for row in csv.DictReader(listed.open())}
        names = sorted(set(known.values()))

        def judge(photo: data.Photo, pixels: np.ndarray) -> int | None:
            return names.index(known[photo.name]) if photo.name in known else None
    elif "prefixes" in plan:
        names = list(plan["prefixes"])

        def judge(photo: data.Photo, pixels: np.ndarray) -> int | None:
            return next((i for i, kinds in enumerate(plan["prefixes"].values()) if photo.kind in kinds), None)
    else:
        names = list(plan["classes"])
        sets = [np.arange(first, last + 1) for first, last in plan["classes"].values()]

        def judge(photo: data.Photo, pixels: np.ndarray) -> int | None:
            logits = whole.unsplit(pixels)[1].astype(np.float64)
            share = np.exp(logits - logits.max())
            mass = np.array([share[chosen].sum() for chosen in sets]) / share.sum()
            return int(mass.argmax()) if mass.max() >= plan["min_probability"] else None

    def gather(photos: list[data.Photo], most: int) -> Labelled:
        found, classes = [], []
        progress = Progress("labels", most)
        for photo in photos:
            if len(found) == most:
                break
            if plan.get("file_prefix", photo.kind) != photo.kind:
                continue
            pixels = fitted(whole.geometry, photo)
            answer = judge(photo, pixels)
            if answer is not None:
                found.append(pixels)
                classes.append(answer)
                progress.step(len(found))
        return Labelled(found, np.array(classes))

    parts = gather(training, plan.get("items", len(training))), gather(held, len(held))
    for part in parts:
        if len(set(part.classes.tolist())) < len(names):
            raise SystemExit("a class has no photo: " + ", ".join(n for i, n in enumerate(names) if i not in part.classes))
    return names, *parts


def fitted(geometry: dict, photo: data.Photo) -> np.ndarray:
    """The bundle's geometry (BUNDLE.md, section 3)."""
    if geometry["width"] != geometry["height"] or "short_side" not in geometry:
        raise SystemExit(f"geometry {geometry['name']} is not a centre square: not supported for a new task")
    return np.asarray(data.fit_photo(photo.image(), geometry["short_side"], geometry["width"]), np.uint8)


def fit(features: np.ndarray, classes: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Softmax regression: weight f32 [count, C] and bias f32 [count] on the features as they are."""
    x = torch.from_numpy(features).double()
    y = torch.from_numpy(classes)
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-3)
    x = (x - mean) / spread
    weight = torch.zeros(count, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, y) + WEIGHT_DECAY * weight.square().sum()
        value.backward()
        return value

    optimiser.step(closure)
    with torch.no_grad():
        scaled = weight / spread
        return scaled.float().numpy(), (bias - scaled @ mean).float().numpy()


def measure(whole: OpenBundle, held: Labelled, layers: dict) -> list[dict]:
    """Share of held-out photos named right: unsplit, then level by level."""

    def right(features: list[np.ndarray], layer: tuple) -> float:
        return round(float(((np.stack(features) @ layer[0].T + layer[1]).argmax(1) == held.classes).mean()), 4)

    rows = [
        {
            "level": "unsplit",
            "bytes": "",
            "photos": len(held.classes),
            "right": right([whole.unsplit(p)[0] for p in held.pixels], layers["reference"]),
        }
    ]
    for index, level in enumerate(whole.levels):
        found = right([whole.decoded(p, index) for p in held.pixels], layers["tail"])
        rows.append({"level": index, "bytes": level["bytes"], "photos": len(held.classes), "right": found})
    return rows


def replaced(model: onnx.ModelProto, output: str, layer: tuple[np.ndarray, np.ndarray]) -> onnx.ModelProto:
    """The network with another last layer; what only the old one used is dropped."""
    old = last_layer(model, output)
    named = [f"{output}.weight", f"{output}.bias"]
    new = helper.make_node("Gemm", [old.input[0], *named], [output], name=old.name, transB=1)
    nodes = [new if node is old else node for node in model.graph.node]
    while True:
        used = {name for node in nodes for name in node.input} | {output}
        kept = [node for node in nodes if used.intersection(node.output)]
        if len(kept) == len(nodes):
            break
        nodes = kept
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    stored = [numpy_helper.from_array(value, name) for name, value in zip(named, layer, strict=True)]
    weights = [w for w in model.graph.initializer if w.name in used] + stored
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", len(layer[1])]))
    onnx.checker.check_model(model)
    return model


def write(whole: OpenBundle, out: Path, name: str, names: list[str], layers: dict, rows: list[dict], note: str) -> None:
    """The bundle with the new task: three files more, a section in the card, the manifest last."""
    if out.resolve() != whole.folder.resolve():
        shutil.copytree(whole.folder, out, dirs_exist_ok=True)
    task = whole.task
    files = {
        f"tail-{name}.onnx": (task["tail"], task["output"], "tail"),
        f"reference-{name}.onnx": (task["reference"]["file"], task["reference"]["output"], "reference"),
    }
    for file, (old, output, layer) in files.items():
        onnx.save(replaced(onnx.load(str(whole.folder / old)), output, layers[layer]), str(out / file))
    (out / f"labels-{name}.tsv").write_text("".join(f"{n}\n" for n in names))
    lines = [
        "",
        f"## Task {name}",
        "",
        "A new last layer on the classify tail; head and tables are the bundle's. " + note,
        "",
        "| level | bytes | held-out photos | right |",
        "|---|---|---|---|",
    ]
    lines += [f"| {r['level']} | {r['bytes']} | {r['photos']} | {r['right']:.1%} |" for r in rows]
    with (out / "CARD.md").open("a") as card:
        card.write("\n".join(lines) + "\n")
    entry = (
        f'\n[[task]]\nname = "{name}"\nkind = "classify"\ntail = "tail-{name}.onnx"\nlatent = "{task["latent"]}"\n'
        f'step = "{task["step"]}"\noutput = "{task["output"]}"\ngeometry = "{task["geometry"]}"\nlabels = "labels-{name}.tsv"\n'
        f'reference = {{ file = "reference-{name}.onnx", input = "{task["reference"]["input"]}", output = "{task["reference"]["output"]}" }}\n'
    )
    text = (whole.folder / "manifest.toml").read_text()
    body, _ = text.split("\n[digests]\n")
    named = sorted([*whole.manifest["digests"], *files, f"labels-{name}.tsv"])
    digests = "\n".join(f'"{file}" = "{hashlib.sha256((out / file).read_bytes()).hexdigest()}"' for file in named)
    (out / "manifest.toml").write_text(f"{body}\n{entry}\n[digests]\n{digests}\n")
