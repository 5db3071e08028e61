"""A further classification task for an exported bundle, head and tables untouched: `python -m recipe task NAME`.

The new tail is the classification tail with another last linear layer, fitted to the features before that layer: those of
real packets and those of the unsplit network. Only the bundle folder is needed, no checkpoint.

Labels come from `[tasks.NAME]` of the config or from `--labels FILE.csv` with the columns file and label.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional as F

from . import bundle_head, data, manifest
from .check import session, signed_image
from .progress import Progress

WEIGHT_DECAY = 1e-3  # of the last layer, on features of unit variance

Layer = tuple[np.ndarray, np.ndarray]  # weight f32 [classes,C] and bias f32 [classes]


@dataclass
class LabelledPhotos:
    """Photos u8 [side,side,3] of one task with the index of their class."""

    pixels: list[np.ndarray]
    classes: np.ndarray


@dataclass
class OpenBundle:
    """Sessions of a bundle's networks: the head per level, the classification tail and the unsplit network up to the last layer."""

    folder: Path
    manifest: dict
    task: dict  # the manifest's entry of the classification task to build on

    def __post_init__(self):
        self.levels = self.manifest["level"]
        self.geometry = next(g for g in self.manifest["geometry"] if g["name"] == self.task["geometry"])
        self.heads = [bundle_head.session_at(self.folder / self.manifest["head"]["file"], level["gain"]) for level in self.levels]
        reference = self.task["reference"]
        self.tail = with_features(onnx.load(str(self.folder / self.task["tail"])), self.task["output"])
        self.reference = with_features(onnx.load(str(self.folder / reference["file"])), reference["output"])

    def symbols(self, pixels: np.ndarray, level: int) -> np.ndarray:
        """Symbols i8 [1,C,h,w] of pixels u8 [H,W,3]."""
        return self.heads[level].run(None, {self.manifest["head"]["input"]: signed_image(pixels)[None]})[0]

    def decoded_features(self, pixels: np.ndarray, level: int) -> np.ndarray:
        """Input f32 [C] of the last layer, computed from a packet of this level."""
        step = np.float32(self.levels[level]["step"])
        inputs = {self.task["latent"]: self.symbols(pixels, level).astype(np.float32) * step, self.task["step"]: step[None]}
        return self.tail.run(None, inputs)[0][0]

    def unsplit_features(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Input f32 [C] of the last layer and logits f32 [classes] of the unsplit network."""
        features, logits = self.reference.run(None, {self.task["reference"]["input"]: pixels[None]})
        return features[0], logits[0]


def open_bundle(folder: Path) -> OpenBundle:
    """The bundle at `folder`; exits where it has no classification task with a reference."""
    entries = manifest.read(folder)
    task = next((t for t in entries["task"] if t["kind"] == "classify" and "reference" in t), None)
    if task is None:
        raise SystemExit(f"{folder} has no classification task with a reference to build on")
    return OpenBundle(folder, entries, task)


def last_layer(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    """The Gemm that computes the logits; exits where another operator does."""
    node = next((n for n in model.graph.node if output in n.output), None)
    if node is None or node.op_type != "Gemm":
        raise SystemExit(
            f"{output} is the output of {node.op_type if node else 'no node'}: only a last linear layer (Gemm) can be replaced"
        )
    return node


def with_features(model: onnx.ModelProto, output: str) -> onnxruntime.InferenceSession:
    """A session whose first output is the input of the last layer, followed by the logits."""
    features = onnx.ValueInfoProto()
    features.name = last_layer(model, output).input[0]
    model.graph.output.insert(0, features)
    return session(model.SerializeToString())


def run(config: dict, source: Path, folder: Path, out: Path, name: str, labels: Path | None, results: Path) -> None:
    """Label photos, fit the last layer, measure it on held-out photos, and write the bundle with the task to `out`."""
    plan = config.get("tasks", {}).get(name, {})
    if not plan and labels is None:
        raise SystemExit(f"[tasks.{name}] is not in the config: add it or give --labels FILE.csv")
    bundle = open_bundle(folder)
    if name in [task["name"] for task in bundle.manifest["task"]]:
        raise SystemExit(f"{folder} already has a task {name}")
    names, training, held_out = label(config, source, bundle, plan, labels)
    print(f"{name}: {', '.join(names)}; {len(training.pixels)} photos to train on, {len(held_out.pixels)} held out")
    rng = np.random.default_rng(config["seed"])
    decoded, unsplit = [], []
    progress = Progress("features", len(training.pixels))
    for number, pixels in enumerate(training.pixels):
        decoded.append(bundle.decoded_features(pixels, int(rng.integers(len(bundle.levels)))))
        unsplit.append(bundle.unsplit_features(pixels)[0])
        progress.step(number + 1)
    layers = {
        "tail": fit(np.stack(decoded + unsplit), np.tile(training.classes, 2), len(names)),
        "reference": fit(np.stack(unsplit), training.classes, len(names)),
    }
    rows = measure(bundle, held_out, layers)
    results.mkdir(parents=True, exist_ok=True)
    with (results / f"task-{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write(bundle, out, name, names, layers, rows, plan.get("note", ""))
    print("\n".join(" ".join(f"{k} {v}" for k, v in row.items()) for row in rows))
    print(f"wrote {out}: head.onnx and tables.bin are unchanged")


def label(
    config: dict, source: Path, bundle: OpenBundle, plan: dict, labels: Path | None
) -> tuple[list[str], LabelledPhotos, LabelledPhotos]:
    """Class names, training photos and held-out photos; exits where a class has no photo."""
    training, held_out = data.photos(config, source)
    names, classify = classifier(bundle, plan, labels)

    def gather(photos: list[data.Photo], most: int) -> LabelledPhotos:
        found, classes = [], []
        progress = Progress("labels", most)
        for photo in photos:
            if len(found) == most:
                break
            if plan.get("file_prefix", photo.kind) != photo.kind:
                continue
            pixels = resize(bundle.geometry, photo)
            index = classify(photo, pixels)
            if index is not None:
                found.append(pixels)
                classes.append(index)
                progress.step(len(found))
        return LabelledPhotos(found, np.array(classes))

    parts = gather(training, plan.get("items", len(training))), gather(held_out, len(held_out))
    for part in parts:
        if len(set(part.classes.tolist())) < len(names):
            raise SystemExit("a class has no photo: " + ", ".join(n for i, n in enumerate(names) if i not in part.classes))
    return names, *parts


def classifier(bundle: OpenBundle, plan: dict, labels: Path | None) -> tuple[list[str], Callable[[data.Photo, np.ndarray], int | None]]:
    """Class names and a function from a photo to the index of its class, None if it has none.

    The class is that of the CSV file `labels`, or of the file name's prefix (`prefixes`), or the set of ImageNet classes
    to which the unsplit network gives a probability of at least `min_probability` (`classes`).
    """
    if labels:
        classes = {row["file"]: row["label"] for row in csv.DictReader(labels.open())}
        names = sorted(set(classes.values()))
        return names, lambda photo, _: names.index(classes[photo.name]) if photo.name in classes else None
    if "prefixes" in plan:
        sets = list(plan["prefixes"].values())
        return list(plan["prefixes"]), lambda photo, _: next((i for i, kinds in enumerate(sets) if photo.kind in kinds), None)
    ranges = [np.arange(first, last + 1) for first, last in plan["classes"].values()]

    def by_probability(photo: data.Photo, pixels: np.ndarray) -> int | None:
        logits = bundle.unsplit_features(pixels)[1].astype(np.float64)
        exponential = np.exp(logits - logits.max())
        probability = np.array([exponential[chosen].sum() for chosen in ranges]) / exponential.sum()
        return int(probability.argmax()) if probability.max() >= plan["min_probability"] else None

    return list(plan["classes"]), by_probability


def resize(geometry: dict, photo: data.Photo) -> np.ndarray:
    """Pixels u8 [side,side,3] in the bundle's geometry (models/BUNDLE.md, section 3)."""
    if geometry["width"] != geometry["height"] or "short_side" not in geometry:
        raise SystemExit(f"geometry {geometry['name']} is no central square: it is not supported for a new task")
    return np.asarray(data.fit_photo(photo.image(), geometry["short_side"], geometry["width"]), np.uint8)


def fit(features: np.ndarray, classes: np.ndarray, count: int) -> Layer:
    """Softmax regression from features f32 [N,C], standardised while fitting, to `count` classes."""
    x = torch.from_numpy(features).double()
    y = torch.from_numpy(classes)
    mean, std = x.mean(0), x.std(0).clamp_min(1e-3)
    x = (x - mean) / std
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
        scaled = weight / std
        return scaled.float().numpy(), (bias - scaled @ mean).float().numpy()


def measure(bundle: OpenBundle, held_out: LabelledPhotos, layers: dict[str, Layer]) -> list[dict]:
    """Accuracy on the held-out photos, unsplit and at every level."""

    def accuracy(features: list[np.ndarray], layer: Layer) -> float:
        return round(float(((np.stack(features) @ layer[0].T + layer[1]).argmax(1) == held_out.classes).mean()), 4)

    unsplit = accuracy([bundle.unsplit_features(pixels)[0] for pixels in held_out.pixels], layers["reference"])
    rows = [{"level": "unsplit", "bytes": "", "photos": len(held_out.classes), "accuracy": unsplit}]
    for index, level in enumerate(bundle.levels):
        found = accuracy([bundle.decoded_features(pixels, index) for pixels in held_out.pixels], layers["tail"])
        rows.append({"level": index, "bytes": level["bytes"], "photos": len(held_out.classes), "accuracy": found})
    return rows


def replace_last_layer(model: onnx.ModelProto, output: str, layer: Layer) -> onnx.ModelProto:
    """The network with another last layer, without the nodes and weights that only the old one used."""
    old = last_layer(model, output)
    named = [f"{output}.weight", f"{output}.bias"]
    new = helper.make_node("Gemm", [old.input[0], *named], [output], name=old.name, transB=1)
    nodes = [new if node is old else node for node in model.graph.node]
    while True:
        used = {name for node in nodes for name in node.input} | {output}
        remaining = [node for node in nodes if used.intersection(node.output)]
        if len(remaining) == len(nodes):
            break
        nodes = remaining
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


def write(bundle: OpenBundle, out: Path, name: str, names: list[str], layers: dict[str, Layer], rows: list[dict], note: str) -> None:
    """Write the bundle with the new task to `out`: tail, reference, labels, a section of the card, and the manifest last."""
    if out.resolve() != bundle.folder.resolve():
        shutil.copytree(bundle.folder, out, dirs_exist_ok=True)
    task, reference = bundle.task, bundle.task["reference"]
    files = {
        f"tail-{name}.onnx": (task["tail"], task["output"], "tail"),
        f"reference-{name}.onnx": (reference["file"], reference["output"], "reference"),
    }
    for file, (old, output, layer) in files.items():
        onnx.save(replace_last_layer(onnx.load(str(bundle.folder / old)), output, layers[layer]), str(out / file))
    (out / f"labels-{name}.tsv").write_text("".join(f"{n}\n" for n in names))
    lines = [
        "",
        f"## Task {name}",
        "",
        "The classification tail with another last layer; head and tables are those of the bundle. " + note,
        "",
        "| level | bytes | held-out photos | accuracy |",
        "|---|---|---|---|",
    ]
    lines += [f"| {row['level']} | {row['bytes']} | {row['photos']} | {row['accuracy']:.1%} |" for row in rows]
    with (out / "CARD.md").open("a") as card:
        card.write("\n".join(lines) + "\n")
    entry = task | {
        "name": name,
        "tail": f"tail-{name}.onnx",
        "labels": f"labels-{name}.tsv",
        "reference": reference | {"file": f"reference-{name}.onnx"},
    }
    manifest.write(out, bundle.manifest | {"task": [*bundle.manifest["task"], entry]})
