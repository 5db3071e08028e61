"""Check of a bundle against PyTorch: integer head, packets, tails and references, through ONNX Runtime."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from PIL import Image

from . import manifest, packet, tables, teacher, vectors
from .bundle_parts import BundleParts

LOCAL_TOLERANCE = 0.3  # of the logits' standard deviation: ONNX Runtime rounds the local network's scales differently
TOLERANCE = 1e-2  # absolute and relative, ONNX Runtime against PyTorch (models/BUNDLE.md, section 8)


class Report:
    """Prints one row per check and remembers whether any failed."""

    def __init__(self):
        self.failed = False

    def row(self, what: str, good: bool, detail: str) -> None:
        """Print the result of one check."""
        self.failed |= not good
        print(f"{'ok  ' if good else 'FAIL'} {what:<46} {detail}", flush=True)


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on one processor thread, of a file or of serialised bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def excess(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest error in units of the tolerance; up to 1 passes."""
    return float((np.abs(found - expected) / (TOLERANCE + TOLERANCE * np.abs(expected))).max())


def as_signed(path: Path) -> bytes:
    """A quantised network with every u8 tensor shifted to s8: the same integers in the types ONNX Runtime multiplies exactly.

    Image, activations and their zero points decrease by 128, so the graph's input is s8.
    """
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    shifted = []
    for stored in model.graph.initializer:
        value = numpy_helper.to_array(stored)
        if value.dtype == np.uint8:
            value = signed_image(value)
        shifted.append(numpy_helper.from_array(value, stored.name))
    del model.graph.initializer[:]
    model.graph.initializer.extend(shifted)
    return model.SerializeToString()


def signed_image(pixels: np.ndarray) -> np.ndarray:
    """u8 values minus 128 as i8."""
    return (pixels.astype(np.int16) - 128).astype(np.int8)


def run(parts: BundleParts, bundle: Path) -> None:
    """Compare every file of the bundle with the networks in `parts`; exits where anything differs."""
    report = Report()
    entries = manifest.read(bundle)
    wrong = [name for name, value in entries["digests"].items() if manifest.digest(bundle / name) != value]
    report.row("digests", not wrong, f"{len(entries['digests'])} files" if not wrong else f"differ: {wrong}")
    if (found := entries.get("local", {}).get("exit")) is not None:
        report.row("early exit", is_sound(found), f"threshold {found['threshold']} of {len(found['curve'])}, {found['photos']} photos")
    packed = (bundle / "tables.bin").read_bytes()
    unpacked = tables.unpack(packed)
    shape = f"{len(unpacked.static)} levels x {unpacked.channels} channels"
    report.row("tables.bin", unpacked.pack() == packed, f"{shape}, {len(packed)} bytes")
    head = session(as_signed(bundle / "head.onnx"))
    tasks = [task for task in entries["task"] if task["name"] in ("classify", "segment")]  # later tasks have no PyTorch form
    tails = {task["name"]: session(bundle / task["tail"]) for task in tasks}
    references = {task["name"]: session(bundle / task["reference"]["file"]) for task in tasks}
    stride, channels = entries["head"]["stride"], entries["head"]["channels"]
    shapes = {g["name"]: (channels, g["height"] // stride, g["width"] // stride) for g in entries["geometry"]}
    for vector in entries["vector"]:
        pixels = np.asarray(Image.open(bundle / vector["image"]), np.uint8)
        check_vector(report, parts, bundle, vector, pixels, shapes[vector["geometry"]], packed, head, tails)
        if vector["level"] == parts.config["levels"]["default"]:
            check_references(report, parts, vector["name"], pixels, references)
    check_batch(report, parts, tails, (21, 37) if not teacher.is_custom(parts.config) else shapes["photo"][1:])
    check_local(report, bundle, entries)
    if report.failed:
        raise SystemExit("check failed")


def check_vector(
    report: Report, parts: BundleParts, bundle: Path, vector: dict, pixels: np.ndarray, shape, packed: bytes, head, tails: dict
) -> None:
    """Symbols, packet and tails' outputs of one vector."""
    name, level = vector["name"], vector["level"]
    symbols = np.frombuffer((bundle / vector["symbols"]).read_bytes(), np.int8).reshape(shape)
    exact = parts.head.symbols(pixels, parts.gains[level])
    report.row(f"{name}: symbols, numpy", bool((exact == symbols).all()), f"{symbols.size} of {symbols.min()}..{symbols.max()}")
    if parts.gains[level] == 1:
        off = int((head.run(None, {"image": signed_image(pixels)[None]})[0][0] != symbols).sum())
        report.row(f"{name}: symbols, ONNX Runtime s8", off == 0, f"{off} differ")
    coded = (bundle / vector["packet"]).read_bytes()
    again = packet.encode(packed, vectors.GEOMETRIES.index(vector["geometry"]), level, symbols)
    decoded = packet.decode(packed, shape, coded)
    report.row(f"{name}: packet", again == coded and bool((decoded == symbols).all()), f"{len(coded)} bytes")
    step = np.float32(parts.steps()[level])
    inputs = {"latent": symbols.astype(np.float32)[None] * step, "step": np.array([step], np.float32)}
    expected = vectors.outputs(parts, symbols, level)
    for output in vector["output"]:
        found = tails[output["task"]].run(None, inputs)[0]
        stored = np.frombuffer((bundle / output["file"]).read_bytes(), "<f4")
        error = max(excess(found, expected[output["task"]]), excess(vectors.thinned(found, output["stride"]).reshape(-1), stored))
        report.row(f"{name}: {output['task']}", error <= 1, f"{error:.4f} of the tolerance, shape {list(found.shape)}")


def check_references(report: Report, parts: BundleParts, name: str, pixels: np.ndarray, references: dict) -> None:
    """The unsplit networks on the pixels of one vector."""
    expected = parts.unsplit_outputs(pixels)
    for task, reference in references.items():
        error = excess(reference.run(None, {"image": pixels[None]})[0], expected[task])
        report.row(f"{name}: reference-{task}", error <= 1, f"{error:.4f} of the tolerance")


def check_local(report: Report, bundle: Path, entries: dict) -> None:
    """The local network's vectors through ONNX Runtime, whose sums and means round differently now and then."""
    if "local" not in entries:
        return
    network = session(as_signed(bundle / entries["local"]["file"]))
    for vector in entries["local"]["vector"]:
        pixels = np.asarray(Image.open(bundle / vector["image"]), np.uint8)
        stored = np.frombuffer((bundle / vector["logits"]).read_bytes(), "<f4")
        found = network.run(None, {"image": signed_image(pixels)[None]})[0][0]
        error = np.abs(found - stored)
        good = int(found.argmax()) == int(stored.argmax()) and float(error.max()) <= LOCAL_TOLERANCE * float(stored.std())
        report.row(f"{vector['name']}: logits, ONNX Runtime s8", good, f"{(error > 0).sum()} differ, at most by {error.max():.4f}")


def is_sound(exit: dict) -> bool:
    """Whether an early exit is as models/BUNDLE.md, section 10, says."""
    thresholds, kept, agreement, cost = ([point[key] for point in exit["curve"]] for key in ("threshold", "kept", "agreement", "bytes"))
    shares = all(0 <= share <= 1 for share in [*thresholds, *kept, *agreement])
    rises = all(before < after for before, after in itertools.pairwise(thresholds))
    ordered = kept == sorted(kept, reverse=True) and cost == sorted(cost) and cost[0] >= 0
    return exit["photos"] > 0 and 2 <= len(thresholds) <= 256 and exit["threshold"] in thresholds and shares and rises and ordered


def check_batch(report: Report, parts: BundleParts, tails: dict, size: tuple[int, int]) -> None:
    """Two latents of `size` at different levels give the same outputs in one batch as one by one."""
    rng = np.random.default_rng(5)
    steps = np.array([parts.steps()[0], parts.steps()[-1]], np.float32)
    latent = rng.integers(-3, 4, (2, parts.config["head"]["latent"], *size)).astype(np.float32) * steps[:, None, None, None]
    for task, tail in tails.items():
        together = tail.run(None, {"latent": latent, "step": steps})[0]
        alone = np.concatenate([tail.run(None, {"latent": latent[i : i + 1], "step": steps[i : i + 1]})[0] for i in (0, 1)])
        error = excess(together, alone)
        report.row(f"batch of two: {task}", error <= 1, f"{error:.4f} of the tolerance, shape {list(together.shape)}")
