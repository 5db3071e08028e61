"""Table and plot of the comparison: our levels, the baselines, JPEG and WebP, all against the unsplit network."""

from __future__ import annotations

import json
from pathlib import Path

from . import experiment, rows
from .rows import Row
from .student import Student
from .train import total_crops, total_steps

# Colours of the Okabe-Ito palette with a marker and a line style each, so that systems differ in grey too.
OURS = (("#0072B2", "o", "-"), ("#56B4E9", "P", "-"))  # the config's own system, then the one it is compared with
STYLES = {
    "bottlefit": ("#D55E00", "s", "--"),
    "entropic-student": ("#009E73", "^", "-."),
    "jpeg": ("#555555", "v", ":"),
    "webp": ("#CC79A7", "D", ":"),
}
NAMES = {"bottlefit": "BottleFit", "entropic-student": "Entropic Student", "jpeg": "JPEG", "webp": "WebP"}
IMAGE_CODECS = ("jpeg", "webp")
MIN_AGREEMENT = 0.2  # settings below have learned too little to be drawn; their rows stay in the table


def ours(config: dict, results: Path) -> list[Row]:
    """The rows of our levels, from the figures that `curve` published; none if it has not run."""
    path = results / f"{config['name']}.json"
    if not path.is_file():
        return []
    head, side, steps, train = Student(config).head, config["photo"]["side"], total_steps(config), config["train"]
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
            train.get("budget_hours"),
            "; ".join([f"{steps} of {steps} steps", *([train["machine"]] if "machine" in train else [])]),
        )
        for figures in json.loads(path.read_text())
    ]


def run(config: dict, file: Path, work: Path, stem: Path, redraw: bool = False) -> None:
    """Write `stem`.csv and `stem`.png: our published figures, those of the config's `compare_with`, and the rows in WORK.

    With `redraw`, the plot is drawn again from `stem`.csv alone.
    """
    systems = [config]
    if "compare_with" in config:
        systems.append(experiment.load(file.parent / config["compare_with"]))
    names = [system["name"] for system in systems]
    table = stem.with_suffix(".csv")
    if redraw:
        plot(rows.read_table(table), names, stem.with_suffix(".png"))
        return
    found = [row for system in systems for row in ours(system, stem.parent)] + rows.collect(work)
    rows.table(found, table)
    plot(found, names, stem.with_suffix(".png"))
    print(table.read_text())


def plot(found: list[Row], names: list[str], path: Path) -> None:
    """Draw packet size against the accuracy lost in both tasks, one line per system, baselines with their published coder.

    `names` are our own systems.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4.8), constrained_layout=True)
    for system in dict.fromkeys(row.system for row in found):
        chosen = [row for row in found if row.system == system and (system in names or row.coder != "narrows")]
        colour, marker, line = OURS[names.index(system)] if system in names else STYLES[system]
        style = {"color": colour, "marker": marker, "linestyle": line, "markersize": 5.5, "linewidth": 1.6}
        label = label_of(chosen[0], names)
        drawn = [row for row in chosen if row.agreement is None or row.agreement >= MIN_AGREEMENT]
        if not drawn:
            left.plot([], [], label=f"{label}, learned too little to be drawn", **style)
        on_photos = sorted((row.bytes / 1000, 100 * (1 - row.agreement)) for row in drawn if row.bytes is not None)
        on_frames = sorted((row.frame_bytes / 1000, row.miou_unsplit - row.miou) for row in drawn if row.frame_bytes is not None)
        for axis, points in ((left, on_photos), (right, on_frames)):
            if points:
                axis.plot(*zip(*points, strict=True), label=label, **style)
    left.set(title="classification, 200 held-out photos", xlabel="mean packet or file, kB per photo", ylabel="top-1 class changed, %")
    right.set(title="segmentation, CamVid val", xlabel="mean packet or file, kB per frame", ylabel="mIoU lost against the unsplit network")
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
    """Legend text: the system, the work of its head and the crops it was trained on."""
    if row.system in IMAGE_CODECS:
        return NAMES[row.system]
    system = f"narrows, {row.system}" if row.system in names else NAMES.get(row.system, row.system)
    return f"{system}: head of {row.head_macs / 1e6:.0f} MMAC in {row.arithmetic}, trained on {row.crops / 1000:.0f}k crops"
