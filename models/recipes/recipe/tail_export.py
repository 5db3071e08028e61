"""A bundle with a new tail: that of `tail.bundle` with other files for the server; the device's files and packets stay.

head.onnx, tables.bin, local.onnx, labels, references, and images, symbols and packets of the vectors are copied bit for bit. Only
the tails of the tasks classify and segment, the vectors' outputs, the card and the digests are written. Further tasks of the bundle
were fitted to the features of its old tail, so they are left out. The early exit is calibrated again. Ladders are left out: the
runtime measures them (`narrows-bench evaluate --groups --all-levels`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from . import check, early_exit, graph, manifest, tail, vectors
from .bundle_parts import round_to_f16
from .check import Report, excess
from .segmenter import NAMES
from .tail_targets import Teachers

KINDS = ("classify", "segment")  # of tasks whose tails are made


def run(config: dict, work: Path, source: Path, folder: Path) -> None:
    """Write the bundle of WORK/tail.pt to `folder` and check it; exits where the check fails."""
    base = Path(config["tail"]["bundle"])
    if folder.resolve() == base.resolve():
        raise SystemExit(f"{folder} is the bundle that the tail was trained for: give another --bundle")
    teachers = Teachers(config, torch.device("cpu"), None)
    parts = TailParts(tail.load(config, work, teachers), teachers)
    entries = manifest.read(base)
    shutil.copytree(base, folder, dirs_exist_ok=True, copy_function=shutil.copyfile)
    for entry in entries["task"]:
        entry.pop("ladder", None)
        if entry["name"] not in KINDS:
            for file in (entry["tail"], entry["labels"], entry.get("reference", {}).get("file")):
                if file:
                    (folder / file).unlink()
    entries["task"] = [entry for entry in entries["task"] if entry["name"] in KINDS]
    early = entries.get("local", {}).pop("exit", None)
    parts.write(folder, {entry["name"]: entry["tail"] for entry in entries["task"]})
    write_outputs(parts, entries, folder)
    entries["name"] = config["name"]
    write_card(config, work, base, folder)
    manifest.write(folder, {key: value for key, value in entries.items() if key not in ("format", "digests")})
    print(f"exported {folder}: {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.1f} MB")
    check_bundle(parts, base, folder)
    if early:
        early_exit.run(config, source, folder)


class TailParts:
    """Decoder, backbone and segmentation tail, weights rounded as the bundle stores them."""

    def __init__(self, new: tail.CheapTail, teachers: Teachers):
        self.decoder, self.net, self.segmenter = (round_to_f16(part) for part in (new.decoder, new.net, new.segmenter()))
        self.steps = teachers.steps

    @torch.inference_mode()
    def outputs(self, symbols: np.ndarray, level: int) -> dict[str, np.ndarray]:
        """Output f32 of each task for the symbols i8 [C,h,w] of one packet."""
        step = self.steps[level : level + 1]
        split = self.decoder(torch.from_numpy(symbols.astype(np.float32))[None] * step, step)
        return {"classify": self.net.back(split).logits.numpy(), "segment": self.segmenter(split).numpy()}

    def write(self, folder: Path, files: dict[str, str]) -> None:
        """Write the tails of the tasks in `files`."""
        finish = {"classify": lambda g, x: graph.classify(g, self.net, x), "segment": lambda g, x: graph.segment(g, self.segmenter, x)}
        outputs = {"classify": ("logits", ["n", 1000]), "segment": ("mask", ["n", len(NAMES), "height", "width"])}
        for task, file in files.items():
            graph.tail(folder / file, self.decoder, self.net, finish[task], outputs[task])


def shape_of(entries: dict, geometry: str) -> tuple[int, int, int]:
    """Shape of the symbols of a geometry."""
    found = next(entry for entry in entries["geometry"] if entry["name"] == geometry)
    stride = entries["head"]["stride"]
    return entries["head"]["channels"], found["height"] // stride, found["width"] // stride


def stored_symbols(entries: dict, folder: Path, vector: dict) -> np.ndarray:
    """Symbols i8 [C,h,w] of a vector."""
    return np.frombuffer((folder / vector["symbols"]).read_bytes(), np.int8).reshape(shape_of(entries, vector["geometry"]))


def write_outputs(parts: TailParts, entries: dict, folder: Path) -> None:
    """Write the outputs of every vector again; those of tasks that the bundle no longer has are removed."""
    for vector in entries["vector"]:
        found = parts.outputs(stored_symbols(entries, folder, vector), vector["level"])
        for output in vector["output"]:
            if output["task"] not in found:
                (folder / output["file"]).unlink()
                continue
            thinned = vectors.thinned(found[output["task"]], output["stride"])
            (folder / output["file"]).write_bytes(np.ascontiguousarray(thinned, "<f4").tobytes())
        vector["output"] = [output for output in vector["output"] if output["task"] in found]


def write_card(config: dict, work: Path, base: Path, folder: Path) -> None:
    """Write CARD.md: that of the bundle the tail was trained for, behind what is different."""
    plan, stored = config["tail"], work / "tail.json"
    rows = ["not measured"]
    if stored.is_file():
        found = json.loads(stored.read_text())
        rows = [
            f"{found['photos']} photos that the tail was not trained on; all but 200 of them were used in the bundle's own training.",
            f"{found['frames']} frames of CamVid val. Unsplit segmentation: mIoU {found['miou_unsplit']:.3f}.",
            "",
            "| level | agreement before | now | KL before | now | mIoU before | now |",
            "|---|---|---|---|---|---|---|",
        ]
        for row, masks in zip(found["levels"], found["masks"], strict=True):
            cells = [f"{row[f'agreement_{name}']:.1%}" for name in ("old", "new")] + [
                f"{row[f'divergence_{name}']:.3f}" for name in ("old", "new")
            ]
            cells += [f"{masks[f'miou_{name}']:.3f}" for name in ("old", "new")]
            rows.append(f"| {row['level']} | {' | '.join(cells)} |")
    text = CARD.format(
        name=config["name"], base=base.name, identity=manifest.digest(base / manifest.FILE), width=plan["width"], blocks=plan["blocks"],
        step=tail.step_of(work), measured="\n".join(rows), card=(base / "CARD.md").read_text(),
    )  # fmt: skip
    (folder / "CARD.md").write_text(text)


def check_bundle(parts: TailParts, base: Path, folder: Path) -> None:
    """Compare the tails with PyTorch, and everything that the device reads with the bundle `base`; exits where anything differs."""
    report, entries, before = Report(), manifest.read(folder), manifest.read(base)
    device = ["head.onnx", "tables.bin", *([entries["local"]["file"]] if "local" in entries else [])]
    device += [vector[key] for vector in entries["vector"] for key in ("image", "symbols", "packet")]
    changed = [name for name in device if entries["digests"][name] != before["digests"][name]]
    report.row("head, tables and packets", not changed, f"{len(device)} files as in {base.name}" if not changed else f"differ: {changed}")
    wrong = [name for name, value in entries["digests"].items() if manifest.digest(folder / name) != value]
    report.row("digests", not wrong, f"{len(entries['digests'])} files" if not wrong else f"differ: {wrong}")
    tails = {entry["name"]: check.session(folder / entry["tail"]) for entry in entries["task"]}
    for vector in entries["vector"]:
        symbols, step = stored_symbols(entries, folder, vector), parts.steps[vector["level"]].numpy()
        expected = parts.outputs(symbols, vector["level"])
        inputs = {"latent": symbols.astype(np.float32)[None] * step, "step": step[None]}
        for output in vector["output"]:
            found = tails[output["task"]].run(None, inputs)[0]
            stored = np.frombuffer((folder / output["file"]).read_bytes(), "<f4")
            error = max(excess(found, expected[output["task"]]), excess(vectors.thinned(found, output["stride"]).reshape(-1), stored))
            report.row(f"{vector['name']}: {output['task']}", error <= 1, f"{error:.4f} of the tolerance")
    for name, network in tails.items():
        shape = (2, entries["head"]["channels"], 21, 37)
        latent, steps = np.random.default_rng(5).integers(-3, 4, shape).astype(np.float32), parts.steps[[0, -1]].numpy()
        together = network.run(None, {"latent": latent, "step": steps})[0]
        alone = np.concatenate([network.run(None, {"latent": latent[i : i + 1], "step": steps[i : i + 1]})[0] for i in (0, 1)])
        error = excess(together, alone)
        report.row(f"batch of two: {name}", error <= 1, f"{error:.4f} of the tolerance")
    if report.failed:
        raise SystemExit("check failed")


CARD = """# {name}

Head, probability tables and packets are those of {base}, bit for bit (manifest SHA-256 `{identity}`). The
tails are cheaper: a decoder of {blocks} residual blocks with {width} channels computes the features of the split straight from the
latent, without the sketch and the front of the backbone. It was distilled from the tails of {base} and from the unsplit network,
{step} steps.

## Measured on held-out data

{measured}

## The bundle that the head is from

The rest of this card is that of {base}; its figures and its words on the decoder are those of the tails before.

{card}"""
