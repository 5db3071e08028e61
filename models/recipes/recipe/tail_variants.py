"""Other forms of the tails of WORK/tail.pt, each checked against the f32 files: `python -m recipe tail --part variants`.

WORK/variants holds, for each task, f32, f16 (for GPUs) and int8 (for processors with 8-bit dot products); the segmentation tail with
symbols i8 as input and classes u8 as output; and the network in parts for tasks that are asked together: a trunk, run once per
frame, and a small network per task. The runtime reads the f32 tails of a bundle only, so none of these is put into one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16

from . import check, graph, tail, tail_measure
from .graph import FLOAT, Graph, value
from .segmenter import NAMES, Confusion
from .tail_export import TailParts
from .tail_targets import StoredRows, StoredTargets, Teachers

CALIBRATION_ROWS = 64  # stored crops that int8 ranges are measured on
TIMED = 12  # runs, of which the fastest counts
FRAMES = 12  # of CamVid val that masks are compared on
TRUNK = ("split", "stride16", "stride32")  # outputs of the trunk
SEGMENTERS = ("segment", "segment-f16", "segment-int8", "segment-map", "segment-head")
OUTPUTS = {"classify": ("logits", ["n", 1000]), "segment": ("mask", ["n", len(NAMES), "height", "width"])}


def run(config: dict, work: Path, source: Path, photos: int | None) -> None:
    """Write all variants, compare them with f32 and time them; leaves WORK/variants/variants.json."""
    folder = work / "variants"
    folder.mkdir(exist_ok=True)
    teachers = Teachers(config, torch.device("cpu"), None)
    parts = TailParts(tail.load(config, work, teachers), teachers)
    write(parts, folder)
    rows = tail_measure.photo_rows(config, work, source, teachers, photos)
    frames = tail_measure.frame_rows(config, work, source, teachers)
    for task in OUTPUTS:
        half(folder / f"{task}.onnx", folder / f"{task}-f16.onnx")
        eight_bits(folder / f"{task}.onnx", folder / f"{task}-int8.onnx", StoredTargets(work / "tail-targets"), teachers)
    steps = teachers.steps.numpy()
    table = [*classification(folder, rows, steps, min(photos or rows.count, rows.count)), *segmentation(folder, frames, steps)]
    (folder / "variants.json").write_text(json.dumps(table, indent=1) + "\n")
    for row in table:
        print(f"{row['file']:28} {row['bytes'] / 1e6:6.2f} MB {row['ms']:7.1f} ms   same class as f32 {row['same']:.4f}   {row['note']}")


def write(parts: TailParts, folder: Path) -> None:
    """Write the f32 tails, the segmentation tail from symbols to classes, and trunk and heads."""
    channels = parts.decoder.enter.in_channels
    parts.write(folder, {task: f"{task}.onnx" for task in OUTPUTS})
    latent, step = value("latent", FLOAT, ["n", channels, "h", "w"]), value("step", FLOAT, ["n"])

    g = Graph()
    axes = g.constant("step.axes", np.array([1, 2, 3], np.int64))
    scaled = g.node("Mul", [g.node("Cast", ["symbols"], to=FLOAT), g.node("Unsqueeze", ["step", axes])])
    scores = graph.segment(g, parts.segmenter, graph.decode_directly(g, parts.decoder, scaled, "step"))
    g.node("Cast", [g.node("ArgMax", [scores], axis=1, keepdims=0)], output="classes", to=TensorProto.UINT8)
    symbols = value("symbols", TensorProto.INT8, ["n", channels, "h", "w"])
    g.save(folder / "segment-map.onnx", [symbols, step], [value("classes", TensorProto.UINT8, ["n", "height", "width"])])

    g = Graph()
    split = graph.decode_directly(g, parts.decoder, "latent", "step")
    deep = graph.groups(g, parts.net.groups[3:], 4, split)
    for name, tensor in zip(TRUNK, (split, deep[1], deep[3]), strict=True):
        g.node("Identity", [tensor], output=name)
    widths = (parts.net.split_channels, *(parts.net.groups[index][-1].project.out_channels for index in (4, 6)))
    maps = [value(name, FLOAT, ["n", width, f"h_{name}", f"w_{name}"]) for name, width in zip(TRUNK, widths, strict=True)]
    g.save(folder / "trunk.onnx", [latent, step], maps)

    g = Graph()
    graph.answer(g, parts.net, "stride32")
    g.save(folder / "classify-head.onnx", maps[2:], [value("logits", FLOAT, ["n", 1000])])
    g = Graph()
    graph.fuse(g, parts.segmenter, *TRUNK)
    g.save(folder / "segment-head.onnx", maps, [value("mask", FLOAT, ["n", len(NAMES), "height", "width"])])


def half(path: Path, out: Path) -> None:
    """Write a network in f16; inputs and outputs stay f32, and so does the logarithm of the step."""
    model = convert_float_to_float16(onnx.load(str(path)), keep_io_types=True, op_block_list=["Log", "Resize", "Cast"])
    onnx.save(model, str(out))


class Calibration(CalibrationDataReader):
    """Latents of stored training crops, one at a time."""

    def __init__(self, targets: StoredTargets, teachers: Teachers):
        found = targets.rows(np.linspace(0, targets.count - 1, min(CALIBRATION_ROWS, targets.count)).astype(int))
        latent, step = teachers.latent(found["symbols"], found["level"])
        self.items = iter([{"latent": latent[at : at + 1].numpy(), "step": step[at : at + 1].numpy()} for at in range(len(step))])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.items, None)


def eight_bits(path: Path, out: Path, targets: StoredTargets, teachers: Teachers) -> None:
    """Write a network whose convolutions are in int8, a scale per channel; the decoder's first layers stay f32."""
    folded = out.with_suffix(".f32")
    options = check.onnxruntime.SessionOptions()
    options.graph_optimization_level = check.onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)  # weights as f32 constants, which the quantiser needs
    check.onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    kept = [node.name for node in onnx.load(str(folded)).graph.node if node.op_type == "Conv" and "latent" in node.input]
    quantize_static(
        str(folded),
        str(out),
        Calibration(targets, teachers),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm", "Add", "GlobalAveragePool"],
        nodes_to_exclude=kept,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    folded.unlink()


def timed(run: Callable[[], object]) -> float:
    """Milliseconds of processor time of the fastest of some runs."""
    best = float("inf")
    for _ in range(TIMED):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return 1000 * best


def row_of(path: Path, milliseconds: float, same: float, note: str) -> dict:
    return {"file": path.name, "bytes": path.stat().st_size, "ms": round(milliseconds, 2), "same": round(same, 4), "note": note}


def latents(rows: StoredRows, level: int, steps: np.ndarray, count: int) -> list[dict[str, np.ndarray]]:
    """Inputs of a tail for the first `count` rows at a level."""
    step = steps[level : level + 1]
    return [{"latent": rows.arrays["symbols"][at : at + 1, level].astype(np.float32) * step, "step": step} for at in range(count)]


def classification(folder: Path, rows: StoredRows, steps: np.ndarray, count: int) -> list[dict]:
    """Agreement of f16, int8 and the parts with f32 over all levels, and with the unsplit network."""
    inputs = [item for level in range(len(steps)) for item in latents(rows, level, steps, count)]
    right = np.tile(rows.arrays["unsplit"][:count].argmax(1), len(steps))
    trunk, head = check.session(folder / "trunk.onnx"), check.session(folder / "classify-head.onnx")

    def joined(item: dict[str, np.ndarray]) -> np.ndarray:
        return head.run(None, {"stride32": trunk.run(["stride32"], item)[0]})[0]

    table, wanted = [], None
    for name in ("classify", "classify-f16", "classify-int8", "classify-head"):
        network = check.session(folder / f"{name}.onnx")
        answer = joined if name == "classify-head" else lambda item, network=network: network.run(None, item)[0]
        found = np.array([answer(item)[0].argmax() for item in inputs])
        wanted = found if wanted is None else wanted
        note = f"agreement with unsplit, mean of levels {np.mean(found == right):.4f}" + (", behind trunk.onnx" if answer is joined else "")
        table.append(row_of(folder / f"{name}.onnx", timed(lambda answer=answer: answer(inputs[0])), float(np.mean(found == wanted)), note))
    return table


def segmentation(folder: Path, rows: StoredRows, steps: np.ndarray) -> list[dict]:
    """Share of pixels of f16, int8, map and the parts whose class is that of f32, and mIoU, at level 1; time of both tasks together."""
    count = min(FRAMES, rows.count)
    inputs = latents(rows, 1, steps, count)
    networks = {name: check.session(folder / f"{name}.onnx") for name in (*SEGMENTERS, "trunk", "classify-head")}

    def scores(name: str, item: dict[str, np.ndarray]) -> np.ndarray:
        if name == "segment-map":
            symbols = np.round(item["latent"] / item["step"]).astype(np.int8)
            return networks[name].run(None, {"symbols": symbols, "step": item["step"]})[0]
        if name == "segment-head":
            item = dict(zip(TRUNK, networks["trunk"].run(list(TRUNK), item), strict=True))
        return networks[name].run(None, item)[0]

    def together() -> None:
        maps = dict(zip(TRUNK, networks["trunk"].run(list(TRUNK), inputs[0]), strict=True))
        networks["segment-head"].run(None, maps)
        networks["classify-head"].run(None, {"stride32": maps["stride32"]})

    table, wanted = [], None
    for name in SEGMENTERS:
        answers = [scores(name, item)[0] for item in inputs]
        found = np.stack([answer if answer.ndim == 2 else answer.argmax(0) for answer in answers])
        wanted, confusion = found if wanted is None else wanted, Confusion()
        for at in range(count):
            confusion.add(torch.from_numpy(found[at]), torch.from_numpy(rows.arrays["true"][at]))
        note = f"mIoU of {count} frames {confusion.mean():.4f}" + (", behind trunk.onnx" if name == "segment-head" else "")
        table.append(
            row_of(folder / f"{name}.onnx", timed(lambda name=name: scores(name, inputs[0])), float(np.mean(found == wanted)), note)
        )
    table.append(row_of(folder / "trunk.onnx", timed(together), 1.0, "time of both tasks of a frame together, heads included"))
    return table
