"""One table and one plot of a campaign: our levels, the baselines, JPEG and WebP, all against the unsplit network."""

from __future__ import annotations

import json
from pathlib import Path

from . import experiment, rows
from .rows import Row
from .student import Student
from .train import total_crops, total_steps

# Okabe and Ito's palette and a marker each: told apart in grey too
OURS = (("#0072B2", "o", "-"), ("#56B4E9", "P", "-"))  # the campaign's, the earlier one's
LOOKS = {
    "bottlefit": ("#D55E00", "s", "--"),
    "entropic-student": ("#009E73", "^", "-."),
    "jpeg": ("#555555", "v", ":"),
    "webp": ("#CC79A7", "D", ":"),
}

LOST = 0.2  # agreement below which a setting has learned too little to be drawn; its row stays in the table

PICTURES = {"jpeg": "JPEG", "webp": "WebP"}


def ours(config: dict, results: Path) -> list[Row]:
    """Our levels out of the figures that `curve` left; none where it has not run."""
    path = results / f"{config['name']}.json"
    if not path.is_file():
        return []
    head, side, steps = Student(config).head, config["photo"]["side"], total_steps(config)
    return [
        Row(
            config["name"],
            f"level {figures['level']}",
            "narrows",
            "int8",
            head.macs(side, side),
            head.parameters_count(),
            figures["bytes"],
            figures["agreement"],
            figures["divergence"],
            figures["frame_bytes"],
            figures["miou_split"],
            figures["miou_unsplit"],
            steps,
            total_crops(config),
            config["train"].get("budget_hours"),
            "; ".join([f"{steps} of {steps} steps", *([config["train"]["machine"]] if "machine" in config["train"] else [])]),
        )
        for figures in json.loads(path.read_text())
    ]


def run(config: dict, file: Path, work: Path, stem: Path) -> None:
    """`stem`.csv and `stem`.png from the rows in WORK, our own figures and those of the `earlier` campaign beside them."""
    campaigns = [config]
    if "compare_with" in config:
        campaigns.append(experiment.load(file.parent / config["compare_with"]))
    found = [row for campaign in campaigns for row in ours(campaign, stem.parent)] + rows.collect(work)
    rows.table(found, stem.with_suffix(".csv"))
    plot(found, [campaign["name"] for campaign in campaigns], stem.with_suffix(".png"))
    print(stem.with_suffix(".csv").read_text())


def plot(found: list[Row], names: list[str], path: Path) -> None:
    """Bytes against what both tasks lose, one line a system, drawn as published: without our coder."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.8), constrained_layout=True)
    for system in dict.fromkeys(row.system for row in found):
        chosen = [row for row in found if row.system == system and (system in names or row.coder != "narrows")]
        colour, marker, line = OURS[names.index(system)] if system in names else LOOKS[system]
        look = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5.5, "linewidth": 1.6}
        label = label_of(chosen[0], names)
        drawn = [row for row in chosen if row.agreement is None or row.agreement >= LOST]
        if not drawn:
            left.plot([], [], label=f"{label}, learned too little to be drawn", **look)
        near = sorted((row.bytes / 1000, 100 * (1 - row.agreement)) for row in drawn if row.bytes is not None)
        road = sorted((row.frame_bytes / 1000, row.miou_unsplit - row.miou) for row in drawn if row.frame_bytes is not None)
        for axis, points in ((left, near), (right, road)):
            if points:
                axis.plot(*zip(*points, strict=True), label=label, **look)
    left.set(title="classification, held-out photos", xlabel="kB a photo, header included", ylabel="answers that change, %")
    right.set(title="segmentation, CamVid val", xlabel="kB a frame, header included", ylabel="mIoU lost")
    for axis in (left, right):
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axis.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if str(f"{x:g}")[0] in "25" else "")
        axis.tick_params(which="minor", labelsize=8)
        axis.grid(alpha=0.3, which="both")
        if not axis.lines:
            axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center")
        axis.set_ylim(bottom=0)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    figure.savefig(path, dpi=150)


def label_of(row: Row, names: list[str]) -> str:
    """System, cost on the device and how far it was trained."""
    if row.system in PICTURES:
        return PICTURES[row.system]
    system = f"ours ({row.system})" if row.system in names else row.system
    return f"{system}: {row.head_macs / 1e6:.0f} MMAC {row.arithmetic}, {row.crops / 1000:.1f}k crops"
