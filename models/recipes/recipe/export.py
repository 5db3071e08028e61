"""Export of a trained checkpoint as a bundle folder (models/BUNDLE.md), for the default and for custom backbones."""

from __future__ import annotations

from pathlib import Path

from . import bundle_parts, card, check, fit_tables, graph, local, manifest, measure, teacher, vectors
from .bundle_parts import BundleParts
from .custom import onnx_export
from .segmenter import COLOURS, NAMES


def run(config: dict, work: Path, source: Path, folder: Path, labels: Path | None = None, reference: bool = False) -> None:
    """Write the bundle of WORK's checkpoint to `folder`, manifest last, and check it against PyTorch.

    `source` holds the training data, whose class names and digests enter the bundle; `labels` replaces the class names of
    a custom backbone, `reference` adds the local network in f32 too. Exits with a message where a file is missing or the check fails.
    """
    parts = bundle_parts.load(config, work)
    names = class_names(config, source, labels)
    folder.mkdir(parents=True, exist_ok=True)
    packed = fit_tables.cached(parts, work).pack()
    (folder / "tables.bin").write_bytes(packed)
    write_graphs(parts, folder)
    (folder / "labels-classify.tsv").write_text("".join(f"{name}\n" for name in names))
    if parts.segmenter is not None:
        (folder / "labels-segment.tsv").write_text("".join(f"{n}\t{c}\n" for n, c in zip(NAMES, COLOURS, strict=True)))
    listed = vectors.write(parts, packed, folder)
    figures = measure.figures(work, len(parts.gains))
    sizes = figures["bytes"]
    if sizes[0] is None:
        print("mean packet sizes were not measured, the manifest holds the training targets: run `python -m recipe measure`")
        sizes = config["levels"]["target_bytes"]
    card.write(parts, figures, folder, work, source)
    manifest.write(folder, entries(parts, [round(size) for size in sizes], listed))
    if "local" in config:
        local.run(config, source, folder, reference)
    print(f"exported {folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.1f} MB")
    check.run(parts, folder)


def class_names(config: dict, source: Path, labels: Path | None) -> list[str]:
    """Names of the classifier's classes: from `labels`, else from the config's data, else numbers."""
    path = labels or (source / config["data"]["class_names"] if "class_names" in config["data"] else None)
    if path is None:
        return [f"class {index}" for index in range(config["backbone"]["classes"])]
    names = [name.strip() for name in path.read_text().split("\n") if name.strip()]
    expected = config["backbone"].get("classes", len(names))
    if len(names) != expected:
        raise SystemExit(f"{path} names {len(names)} classes, the network has {expected}")
    return names


def write_graphs(parts: BundleParts, folder: Path) -> None:
    """Write head, tails and references as ONNX."""
    channels, decoder, net = parts.config["head"]["latent"], parts.student.decoder, parts.net
    graph.head(folder / "head.onnx", parts.head, channels)
    if teacher.is_custom(parts.config):
        side, stride = parts.config["photo"]["side"], parts.student.head.stride
        onnx_export.write_tail(folder / "tail-classify.onnx", decoder, net, (channels, side // stride, side // stride))
        onnx_export.write_reference(folder / "reference-classify.onnx", net, side)
        return
    scores = ("logits", ["n", 1000])
    mask = ("mask", ["n", len(NAMES), "height", "width"])
    graph.tail(folder / "tail-classify.onnx", decoder, net, lambda g, x: graph.classify(g, parts.tail, x), scores)
    graph.tail(folder / "tail-segment.onnx", decoder, net, lambda g, x: graph.segment(g, parts.segmenter, x), mask)
    graph.reference(folder / "reference-classify.onnx", net, lambda g, x: graph.classify(g, net, x), scores)
    graph.reference(folder / "reference-segment.onnx", net, lambda g, x: graph.segment(g, parts.segmenter, x), mask)


def entries(parts: BundleParts, sizes: list[int], listed: list[dict]) -> dict:
    """The manifest without format and digests; `sizes` are the mean packet bytes of each level, `listed` the vectors."""
    config, head, side = parts.config, parts.student.head, parts.config["photo"]["side"]
    described = card.backbone_of(config)
    tasks = [task("classify", "logits", "photo")]
    geometries = [{"name": "photo", "width": side, "height": side, "short_side": config["photo"]["short_side"], "filter": "bicubic"}]
    if parts.segmenter is not None:
        tasks.append(task("segment", "mask", "frame"))
        geometries.append({"name": "frame", **config["frame"], "filter": "bicubic"})
    return {
        "name": config["name"],
        "version": "0.1.0",
        "description": f"{described.name} {described.split}, one int8 head, {len(parts.gains)} rate levels",
        "backbone": described.name,
        "licence": described.licence,
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
        "geometry": geometries,
        "level": [{"gain": g, "step": s, "bytes": b} for g, s, b in zip(parts.gains, parts.steps(), sizes, strict=True)],
        "task": tasks,
        "vector": listed,
    }


def task(name: str, output: str, geometry: str) -> dict:
    """Manifest entry of a task whose name is also its kind."""
    return {
        "name": name,
        "kind": name,
        "tail": f"tail-{name}.onnx",
        "latent": "latent",
        "step": "step",
        "output": output,
        "geometry": geometry,
        "labels": f"labels-{name}.tsv",
        "reference": {"file": f"reference-{name}.onnx", "input": "image", "output": output},
    }
