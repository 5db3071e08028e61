"""The bundle of a cut network: head and tables as ever, tail and reference out of PyTorch's exporter, one geometry.

Large weights are stored as f16 and read as f32, as in the default bundle.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn
from torch.export import Dim

from .. import check, data, graph, manifest, measure, packet, tables, vectors
from ..decoder import Decoder
from ..export import BundleParts, cached_tables
from ..features import FeatureCache
from ..head import quantise_head
from ..student import Student
from . import partitioned
from .partitioned import PartitionedBackbone

LARGE = 1024  # weights from this size on are stored as f16
OPSET = 18


class Tail(nn.Module):
    """Latent and step to logits (models/BUNDLE.md, section 5)."""

    def __init__(self, decoder: Decoder, net: PartitionedBackbone):
        super().__init__()
        self.decoder, self.net = decoder, net

    def forward(self, latent: Tensor, step: Tensor) -> Tensor:
        return self.net.back(self.decoder(latent, step, self.net)[0]).logits


class Reference(nn.Module):
    """u8 [N,H,W,3] to logits (section 6)."""

    def __init__(self, net: PartitionedBackbone):
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image.permute(0, 3, 1, 2).float())


def load(config: dict, work: Path) -> BundleParts:
    student = Student(config)
    student.load_state_dict(torch.load(work / "student.pt", weights_only=True, map_location="cpu")["average"])
    student.eval().requires_grad_(False)
    net = partitioned.load(config, work)
    for module in (student.decoder, net):
        for weight in module.parameters():
            if weight.numel() >= LARGE:
                weight.data = weight.data.half().float()
    return BundleParts(config, student, quantise_head(student.head), net, net, None, student.levels.export_gains())


def run(config: dict, work: Path, source: Path, folder: Path, labels: Path | None) -> None:
    parts = load(config, work)
    folder.mkdir(parents=True, exist_ok=True)
    made = cached_tables(parts, work)
    packed = made.pack()
    (folder / "tables.bin").write_bytes(packed)
    side, stride, latent = config["photo"]["side"], parts.student.head.stride, config["head"]["latent"]
    graph.head(folder / "head.onnx", parts.head, latent)
    example = torch.zeros(2, latent, side // stride, side // stride), torch.ones(2)
    exported(Tail(parts.student.decoder, parts.net), example, ["latent", "step"], folder / "tail-classify.onnx")
    exported(Reference(parts.net), (torch.zeros(2, side, side, 3, dtype=torch.uint8),), ["image"], folder / "reference-classify.onnx")
    names = labels.read_text().split("\n") if labels else [f"class {index}" for index in range(config["backbone"]["classes"])]
    names = [name.strip() for name in names if name.strip()]
    if len(names) != config["backbone"]["classes"]:
        raise SystemExit(f"{labels} names {len(names)} classes, the network has {config['backbone']['classes']}")
    (folder / "labels-classify.tsv").write_text("".join(f"{name}\n" for name in names))
    held = [(measure.fitted(config, photo.image()), None) for photo in data.photos(config, source)[1]]
    levels, _ = measure.classify(parts, made, held, list(range(len(parts.gains))), "held-out photos")
    figures = [(float(np.mean(levels[k].bytes)), float(np.mean(levels[k].agree))) for k in levels]
    listed = written(parts, packed, folder)
    (folder / "CARD.md").write_text(card(parts, figures, len(held), FeatureCache(work / "features").count))
    manifest.write(folder, entries(parts, [round(size) for size, _ in figures], listed))
    verify(parts, packed, folder, listed)
    print(f"exported {folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.1f} MB")


def exported(net: nn.Module, example: tuple, inputs: list[str], path: Path) -> None:
    """ONNX with a free batch size and large weights as f16."""
    free = tuple({0: Dim.DYNAMIC} for _ in example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            net.eval(),
            example,
            dynamo=True,
            dynamic_shapes=free,
            input_names=inputs,
            output_names=["logits"],
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    casts = []
    for stored in model.graph.initializer:
        if stored.data_type == TensorProto.FLOAT and np.prod(stored.dims) >= LARGE:
            half = numpy_helper.to_array(stored).astype(np.float16)
            casts.append(helper.make_node("Cast", [f"{stored.name}.f16"], [stored.name], to=TensorProto.FLOAT))
            stored.CopyFrom(numpy_helper.from_array(half, f"{stored.name}.f16"))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for dims in [t.type.tensor_type.shape.dim for t in (*model.graph.input, *model.graph.output)]:
        dims[0].dim_param = "n"
    del model.graph.value_info[:]
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    model.producer_name = "narrows recipe"
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


@torch.inference_mode()
def answer(parts: BundleParts, symbols: np.ndarray, level: int) -> np.ndarray:
    """PyTorch's logits [1,classes] for one packet's symbols."""
    return parts.tail.back(measure.received(parts, symbols, level)).logits.numpy()


def written(parts: BundleParts, packed: bytes, folder: Path) -> list[dict]:
    """Vectors of a made pattern at every level: no photo of the data may leave with a bundle."""
    (folder / "vectors").mkdir(exist_ok=True)
    side = parts.config["photo"]["side"]
    pixels = vectors.pattern(side, side, 1)
    Image.fromarray(pixels).save(folder / "vectors" / "pattern.png", optimize=True)
    latent, listed = parts.head.latent(pixels), []
    for level, gain in enumerate(parts.gains):
        stem = f"vectors/pattern-level{level}"
        symbols = parts.head.level(latent, gain)
        (folder / f"{stem}.symbols").write_bytes(symbols.tobytes())
        (folder / f"{stem}.packet").write_bytes(packet.encode(packed, 0, level, symbols))
        (folder / f"{stem}.classify").write_bytes(np.ascontiguousarray(answer(parts, symbols, level), "<f4").tobytes())
        files = {"image": "vectors/pattern.png", "symbols": f"{stem}.symbols", "packet": f"{stem}.packet"}
        output = [{"task": "classify", "file": f"{stem}.classify", "stride": 1}]
        listed.append({"name": f"pattern-level{level}", "geometry": "photo", "level": level, **files, "output": output})
    return listed


def entries(parts: BundleParts, sizes: list[int], listed: list[dict]) -> dict:
    """The manifest without digests."""
    config, head, side = parts.config, parts.student.head, parts.config["photo"]["side"]
    split = config["backbone"]
    classify = {
        "name": "classify",
        "kind": "classify",
        "tail": "tail-classify.onnx",
        "latent": "latent",
        "step": "step",
        "output": "logits",
    }
    reference = {"file": "reference-classify.onnx", "input": "image", "output": "logits"}
    return {
        "name": config["name"],
        "version": "0.1.0",
        "description": f"{split['source']} cut behind {split['split']}, one int8 head, {len(parts.gains)} rate levels",
        "backbone": split["source"],
        "licence": split["licence"],
        "default_level": config["levels"]["default"],
        "head": {
            "file": "head.onnx",
            "input": "image",
            "output": "latent",
            "channels": config["head"]["latent"],
            "stride": head.stride,
            "macs": head.macs(side, side),
            "parameters": head.parameters_count(),
        },
        "codec": {"tables": "tables.bin"},
        "geometry": [{"name": "photo", "width": side, "height": side, "short_side": config["photo"]["short_side"], "filter": "bicubic"}],
        "level": [{"gain": g, "step": s, "bytes": b} for g, s, b in zip(parts.gains, parts.steps(), sizes, strict=True)],
        "task": [classify | {"geometry": "photo", "labels": "labels-classify.tsv", "reference": reference}],
        "vector": listed,
    }


def card(parts: BundleParts, figures: list[tuple[float, float]], held: int, crops: int) -> str:
    config, split = parts.config, parts.config["backbone"]
    head, side = parts.student.head, config["photo"]["side"]
    steps = ", ".join(str(config["train"][f"stage{n}"]["steps"]) for n in (1, 2, 3))
    rows = "\n".join(f"| {k} | {parts.gains[k]:.3f} | {size:.0f} | {agree:.1%} |" for k, (size, agree) in enumerate(figures))
    return f"""# {config["name"]}

`{split["source"]}` cut behind `{split["split"]}` ({split["channels"]} channels). The device runs an int8 encoder:
{head.macs(side, side) / 1e6:.2f} MMAC at {side}x{side}, {head.parameters_count()} parameters. One geometry, {side}x{side}.

## Measured on {held} photos held out of training

Agreement is with the unsplit network's first answer. Bytes are whole packets, header included.

| level | gain | bytes | agreement |
|---|---|---|---|
{rows}

## Made from

`python -m recipe new`, seed {config["seed"]}, {steps} steps in stages 1 to 3 of {config["train"]["batch"]} crops each, drawn from {crops}.

## Limits

Only what the images it was distilled on show. Features of a shallow cut can be inverted to a recognisable image.

## Licences

Backbone: {split["licence"]}. Head, decoder and tables: as their maker decides.
"""


def verify(parts: BundleParts, packed: bytes, folder: Path, listed: list[dict]) -> None:
    """Integer head against ONNX Runtime, packets back, tail and reference against PyTorch."""
    report = check.Report()
    report.row("tables.bin", tables.unpack(packed).pack() == packed, f"{len(packed)} bytes")
    head, tail, reference = (
        check.session(source)
        for source in (check.signed(folder / "head.onnx"), folder / "tail-classify.onnx", folder / "reference-classify.onnx")
    )
    pixels = np.asarray(Image.open(folder / "vectors" / "pattern.png"), np.uint8)
    image = (pixels.astype(np.int16) - 128).astype(np.int8)[None]
    for vector in listed:
        level, name = vector["level"], vector["name"]
        symbols = parts.head.symbols(pixels, parts.gains[level])
        if parts.gains[level] == 1:
            off = int((head.run(None, {"image": image})[0][0] != symbols).sum())
            report.row(f"{name}: head, ONNX Runtime", off == 0, f"{off} of {symbols.size} symbols differ")
        back = packet.decode(packed, symbols.shape, (folder / vector["packet"]).read_bytes())
        report.row(f"{name}: packet", bool((back == symbols).all()), f"{(folder / vector['packet']).stat().st_size} bytes")
        step = np.float32(parts.steps()[level])
        feed = {"latent": np.repeat(symbols.astype(np.float32)[None] * step, 3, 0), "step": np.repeat(step, 3)}
        error = check.excess(tail.run(None, feed)[0], answer(parts, symbols, level).repeat(3, 0))
        report.row(f"{name}: tail, batch of three", error <= 1, f"{error:.4f} of the tolerance")
    with torch.inference_mode():
        whole = parts.net(measure.tensor(pixels)).numpy()
    error = check.excess(reference.run(None, {"image": pixels[None]})[0], whole)
    report.row("reference", error <= 1, f"{error:.4f} of the tolerance")
    if report.failed:
        raise SystemExit("check failed")
