"""Does the bundle say what PyTorch says? Integer head against ONNX Runtime, tails on both geometries, packets back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from PIL import Image

from . import packet, tables, vectors
from .export import BundleParts, digest

LOGITS = 0.3  # of the logits' standard deviation, ONNX Runtime's rounding of the local network against ours
TOLERANCE = 1e-2  # absolute and relative, ONNX Runtime against PyTorch


class Report:
    """Rows of a table; remembers whether any failed."""

    def __init__(self):
        self.failed = False

    def row(self, what: str, good: bool, detail: str) -> None:
        self.failed |= not good
        print(f"{'ok  ' if good else 'FAIL'} {what:<46} {detail}", flush=True)


def session(path: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = path if isinstance(path, bytes) else str(path)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def excess(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest error in units of the tolerance: at most 1 is good."""
    return float((np.abs(found - wanted) / (TOLERANCE + TOLERANCE * np.abs(wanted))).max())


def signed(path: Path) -> bytes:
    """head.onnx with every u8 tensor shifted to s8: the same integers in the types ONNX Runtime multiplies exactly.

    Image and activations lose 128, so do their zero points; the graph's input is s8.
    """
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    shifted = []
    for stored in model.graph.initializer:
        value = numpy_helper.to_array(stored)
        if value.dtype == np.uint8:
            value = (value.astype(np.int16) - 128).astype(np.int8)
        shifted.append(numpy_helper.from_array(value, stored.name))
    del model.graph.initializer[:]
    model.graph.initializer.extend(shifted)
    return model.SerializeToString()


def run(parts: BundleParts, bundle: Path) -> None:
    report = Report()
    manifest = tomllib.loads((bundle / "manifest.toml").read_text())
    wrong = [name for name, value in manifest["digests"].items() if digest(bundle / name) != value]
    report.row("digests", not wrong, f"{len(manifest['digests'])} files" if not wrong else f"differ: {wrong}")
    packed = (bundle / "tables.bin").read_bytes()
    made = tables.unpack(packed)
    report.row("tables.bin", made.pack() == packed, f"{len(made.static)} levels x {made.channels} channels, {len(packed)} bytes")
    head = session(signed(bundle / "head.onnx"))
    tails = {task["name"]: session(bundle / task["tail"]) for task in manifest["task"]}
    references = {task["name"]: session(bundle / task["reference"]["file"]) for task in manifest["task"]}
    shapes = {g["name"]: (manifest["head"]["channels"], g["height"] // 8, g["width"] // 8) for g in manifest["geometry"]}
    for vector in manifest["vector"]:
        pixels = np.asarray(Image.open(bundle / vector["image"]), np.uint8)
        one_vector(report, parts, bundle, vector, pixels, shapes[vector["geometry"]], packed, head, tails)
        if vector["level"] == parts.config["levels"]["default"]:
            whole(report, parts, vector["name"], pixels, references)
    batched(report, parts, tails)
    local(report, bundle, manifest)
    if report.failed:
        raise SystemExit("check failed")


def one_vector(report: Report, parts: BundleParts, bundle: Path, vector: dict, pixels: np.ndarray, shape, packed, head, tails) -> None:
    name, level = vector["name"], vector["level"]
    symbols = np.frombuffer((bundle / vector["symbols"]).read_bytes(), np.int8).reshape(shape)
    exact = parts.head.symbols(pixels, parts.gains[level])
    report.row(f"{name}: symbols, numpy", bool((exact == symbols).all()), f"{symbols.size} of {symbols.min()}..{symbols.max()}")
    if parts.gains[level] == 1:
        image = (pixels.astype(np.int16) - 128).astype(np.int8)[None]
        off = int((head.run(None, {"image": image})[0][0] != symbols).sum())
        report.row(f"{name}: symbols, ONNX Runtime s8", off == 0, f"{off} differ")
    coded = (bundle / vector["packet"]).read_bytes()
    again = packet.encode(packed, vectors.GEOMETRIES.index(vector["geometry"]), level, symbols)
    back = packet.decode(packed, shape, coded)
    report.row(f"{name}: packet", again == coded and bool((back == symbols).all()), f"{len(coded)} bytes")
    step = np.float32(parts.steps()[level])
    feed = {"latent": symbols.astype(np.float32)[None] * step, "step": np.array([step], np.float32)}
    wanted = vectors.answers(parts, symbols, level)
    for output in vector["output"]:
        found = tails[output["task"]].run(None, feed)[0]
        error = excess(found, wanted[output["task"]])
        stride = output["stride"]
        kept = np.frombuffer((bundle / output["file"]).read_bytes(), "<f4")
        thinned = found[..., stride // 2 :: stride, stride // 2 :: stride] if found.ndim == 4 else found
        error = max(error, excess(thinned.reshape(-1), kept))
        report.row(f"{name}: {output['task']}", error <= 1, f"{error:.4f} of the tolerance, shape {list(found.shape)}")


def whole(report: Report, parts: BundleParts, name: str, pixels: np.ndarray, references: dict) -> None:
    """The unsplit networks on the same pixels."""
    import torch

    with torch.inference_mode():
        split = parts.net.front(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
        wanted = {"classify": parts.net.back(split).logits.numpy(), "segment": parts.segmenter(split).numpy()}
    for task, runtime in references.items():
        error = excess(runtime.run(None, {"image": pixels[None]})[0], wanted[task])
        report.row(f"{name}: reference-{task}", error <= 1, f"{error:.4f} of the tolerance")


def local(report: Report, bundle: Path, manifest: dict) -> None:
    """The local network's vectors against ONNX Runtime, whose sums and means round once less or more now and then."""
    if "local" not in manifest:
        return
    runtime = session(signed(bundle / manifest["local"]["file"]))
    for vector in manifest["local"]["vector"]:
        pixels = np.asarray(Image.open(bundle / vector["image"]), np.uint8)
        kept = np.frombuffer((bundle / vector["logits"]).read_bytes(), "<f4")
        found = runtime.run(None, {"image": (pixels.astype(np.int16) - 128).astype(np.int8)[None]})[0][0]
        error = np.abs(found - kept)
        good = int(found.argmax()) == int(kept.argmax()) and float(error.max()) <= LOGITS * float(kept.std())
        report.row(f"{vector['name']}: logits, ONNX Runtime s8", good, f"{(error > 0).sum()} differ, at most by {error.max():.4f}")


def batched(report: Report, parts: BundleParts, tails: dict) -> None:
    """Two items of different levels in one batch answer as they do alone, at an odd size."""
    rng = np.random.default_rng(5)
    steps = np.array([parts.steps()[0], parts.steps()[-1]], np.float32)
    latent = rng.integers(-3, 4, (2, parts.config["head"]["latent"], 21, 37)).astype(np.float32) * steps[:, None, None, None]
    for task, runtime in tails.items():
        together = runtime.run(None, {"latent": latent, "step": steps})[0]
        alone = np.concatenate([runtime.run(None, {"latent": latent[i : i + 1], "step": steps[i : i + 1]})[0] for i in (0, 1)])
        error = excess(together, alone)
        report.row(f"batch of two: {task}", error <= 1, f"{error:.4f} of the tolerance, shape {list(together.shape)}")
