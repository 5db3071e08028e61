"""The command line: one subcommand per step, each with its own options. Only a running command imports PyTorch."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import experiment

PARTS = ("split", "classify", "segment", "adapt")  # of `train`, in their order
TAIL_PARTS = ("train", "measure", "export", "variants")  # of `tail`, in their order
IMAGES = ("both", "photos", "frames")


@dataclass(frozen=True)
class Command:
    """One subcommand: its one-line help, its options, an example, and what it runs."""

    help: str
    options: tuple[Callable[[argparse.ArgumentParser], None], ...]
    example: str
    run: Callable[[argparse.Namespace], None]


def main(arguments: list[str] | None = None) -> None:
    """Parse the arguments (of the process by default) and run the subcommand."""
    args = parser().parse_args(arguments)
    COMMANDS[args.command].run(args)


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    top = argparse.ArgumentParser(
        prog="recipe",
        description="Train, measure and export narrows bundles. `recipe COMMAND --help` shows the options of a command.",
        epilog="example: python -m recipe make --data DIR",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name, help=command.help, description=command.help[0].upper() + command.help[1:] + ".", epilog=f"example: {command.example}"
        )
        for option in command.options:
            option(sub)
    return top


# Options that several commands share


def config_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--config", type=Path, default=Path("configs/lite2.toml"), help="the experiment (default: configs/lite2.toml)")


def data_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the tars that the config names")


def work_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--work", type=Path, default=Path("work"), metavar="DIR", help="features, checkpoints and figures (default: work)")


def bundle_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--bundle", type=Path, metavar="DIR", help="the bundle's folder (default: ../bundles/NAME)")


def results_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--results", type=Path, default=Path("../results"), metavar="DIR", help="tables and plots (default: ../results)")


def images_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--images", choices=IMAGES, default="both", help="held-out photos, CamVid val frames or both (default: both)")


def reference_option(p: argparse.ArgumentParser) -> None:
    p.add_argument("--reference", action="store_true", help="add the local network in f32 as well (9 MB)")


# Options of single commands


def train_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--data", type=Path, metavar="DIR", help="folder with the tars (not needed for classify, nor for split on cached crops)")
    p.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    p.add_argument(
        "--part",
        choices=["all", *PARTS],
        default="all",
        help="split: head, levels and decoder; classify: the classification tail, where the config has [classify]; segment: the "
        "segmentation tail; adapt: the same on decoded features (default: all)",
    )
    p.add_argument("--setting", type=float, metavar="X", help="of a baseline: train only this setting of its sweep")


def curve_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--redraw", action="store_true", help="write CSV and plot again from NAME.json, without WORK")


def compare_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--name", default="baselines", help="of the table and the plot (default: baselines)")
    p.add_argument("--redraw", action="store_true", help="draw the plot again from NAME.csv, without WORK")


def tail_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--data", type=Path, metavar="DIR", help="folder with the tars (not needed where the targets are stored and nothing else)"
    )
    p.add_argument(
        "--part", choices=["all", *TAIL_PARTS], default="all", help="train, measure or export only (default: all, in this order)"
    )
    p.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    p.add_argument("--threads", type=int, metavar="N", help="processor threads (default: threads of the config)")
    p.add_argument("--minutes", type=float, metavar="M", help="train for so many minutes, instead of up to tail.steps")
    p.add_argument("--photos", type=int, metavar="N", help="measure only the first N held-out photos")
    p.add_argument("--frame-every", type=int, default=1, metavar="N", help="measure every so many road frames (default: 1)")


def task_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("name", help="of the new task")
    p.add_argument("--labels", type=Path, metavar="CSV", help="columns file and label (default: [tasks.NAME] of the config)")
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the bundle with the new task (default: into --bundle)")


def custom_options(p: argparse.ArgumentParser) -> None:
    p.add_argument("--backbone", required=True, help="timm:NAME, torchvision:NAME or onnx:FILE")
    p.add_argument("--pretrained", action="store_true", help="download the library's weights (default: random ones, or --weights)")
    p.add_argument("--weights", type=Path, metavar="FILE", help="state dict of the backbone")
    p.add_argument("--split", metavar="LAYER", help="split point, or auto (default: list the split points and stop)")
    p.add_argument("--side", type=int, help="side of the square image in pixels (default: the network's own)")
    p.add_argument("--data", type=Path, metavar="DIR", help="folder with images to train on; they need no labels")
    p.add_argument("--name", help="of the bundle (default: the backbone's)")
    p.add_argument("--tasks", default="classify", help="classify, and tasks whose classes are the folders of --data (default: classify)")
    p.add_argument("--labels", type=Path, metavar="FILE", help="class names of the backbone, one a line (default: numbers)")
    p.add_argument("--crops", type=int, default=4, help="training crops of each image (default: 4)")
    p.add_argument("--steps", type=int, default=6000, help="of all training stages together (default: 6000)")
    p.add_argument("--width", type=int, default=96, help="channels of the decoder (default: 96)")
    p.add_argument("--threads", type=int, default=1, help="processes that compute features and train (default: 1)")
    p.add_argument("--seed", type=int, default=1, help="of all random numbers (default: 1)")


# Commands


def load(args: argparse.Namespace) -> dict:
    """The config, with PyTorch set up for its number of threads and its seed."""
    config = experiment.load(args.config)
    threads = config.get("threads", 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(config.get("seed", 0))
    return config


def bundle_of(config: dict, args: argparse.Namespace) -> Path:
    return args.bundle or Path("../bundles") / config["name"]


def make(args: argparse.Namespace) -> None:
    config = load(args)
    from . import pipeline

    pipeline.make(config, args.data, args.work, bundle_of(config, args), args.results, args.reference)


def features(args: argparse.Namespace) -> None:
    config = load(args)
    from . import features as module

    module.run(config, args.work / "features", args.data)


def train(args: argparse.Namespace) -> None:
    if args.data is None and args.part not in ("split", "classify"):
        raise SystemExit(f"recipe train --part {args.part} reads photos: give the folder with the tars, --data DIR")
    config = load(args)
    from . import pipeline

    parts = PARTS if args.part == "all" else (args.part,)
    if experiment.is_baseline(config):
        pipeline.train_baseline(config, args.work, args.data, args.resume, parts, args.setting)
    else:
        pipeline.train_parts(config, args.work, args.data, args.resume, parts)


def measure(args: argparse.Namespace) -> None:
    config = load(args)
    from . import pipeline

    pipeline.measure_images(config, args.work, args.data, args.images)


def calibrate(args: argparse.Namespace) -> None:
    config = load(args)
    from . import calibrate as module

    module.run(config, args.work, args.data)


def curve(args: argparse.Namespace) -> None:
    config = load(args)
    from . import measure as module

    if args.redraw:
        module.redraw(config, args.results)
    else:
        module.curve(config, args.work, args.results)


def evaluate(args: argparse.Namespace) -> None:
    config = load(args)
    from . import measure as module
    from .baselines import measure as baselines

    (baselines if experiment.is_baseline(config) else module).evaluate(config, args.work, args.data, args.results)


def export(args: argparse.Namespace) -> None:
    config = load(args)
    from . import export as module

    module.run(config, args.work, args.data, bundle_of(config, args), reference=args.reference)


def check(args: argparse.Namespace) -> None:
    config = load(args)
    from . import bundle_parts
    from . import check as module

    module.run(bundle_parts.load(config, args.work), bundle_of(config, args))


def update_context(args: argparse.Namespace) -> None:
    config = load(args)
    from . import update_context as module

    module.run(config, args.data, bundle_of(config, args), args.results)


def local(args: argparse.Namespace) -> None:
    config = load(args)
    from . import local as module

    module.run(config, args.data, bundle_of(config, args), args.reference)


def calibrate_exit(args: argparse.Namespace) -> None:
    config = load(args)
    from . import early_exit as module

    module.run(config, args.data, bundle_of(config, args))


def gate(args: argparse.Namespace) -> None:
    config = load(args)
    from . import frame_gate as module

    module.run(config, args.data, bundle_of(config, args), args.results)


def task(args: argparse.Namespace) -> None:
    config = load(args)
    from . import task as module

    folder = bundle_of(config, args)
    module.run(config, args.data, folder, args.out or folder, args.name, args.labels, args.results)


def tail(args: argparse.Namespace) -> None:
    config = load(args)
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    if "tail" not in config:
        raise SystemExit(f"{args.config} has no [tail]: configs/lite2-tail.toml has one")
    parts = TAIL_PARTS if args.part == "all" else (args.part,)
    if args.data is None and parts != ("train",):
        raise SystemExit(f"recipe tail --part {args.part} reads photos: give the folder with the tars, --data DIR")
    from . import tail as module
    from . import tail_export, tail_measure

    if "train" in parts:
        module.run(config, args.work, args.data, args.resume, args.minutes)
    if "measure" in parts:
        tail_measure.run(config, args.work, args.data, args.photos, args.frame_every)
    if "export" in parts:
        tail_export.run(config, args.work, args.data, bundle_of(config, args))
    if "variants" in parts:
        from . import tail_variants

        tail_variants.run(config, args.work, args.data, args.photos)


def custom(args: argparse.Namespace) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
    from . import custom_backbone

    custom_backbone.run(custom_backbone.Options(**{key: value for key, value in vars(args).items() if key != "command"}))


def image_codecs(args: argparse.Namespace) -> None:
    config = load(args)
    from . import image_codecs as module

    module.run(config, args.work, args.data, args.images)


def compare(args: argparse.Namespace) -> None:
    config = load(args)
    from . import compare as module

    module.run(config, args.config, args.work, args.results / args.name, args.redraw)


def ablate(args: argparse.Namespace) -> None:
    config = load(args)
    from . import ablate as module

    module.run(config, args.work, args.data, args.results)


RECIPE = "python -m recipe"
COMMANDS = {
    "make": Command(
        "train, calibrate, measure, export and check a bundle; given again, continue where it stopped",
        (config_option, data_option, work_option, bundle_option, results_option, reference_option),
        f"{RECIPE} make --config configs/lite2.toml --data DIR",
        make,
    ),
    "features": Command(
        "cut the training crops and store the teacher's features of each (6 GB), continuing where it stopped",
        (config_option, data_option, work_option),
        f"{RECIPE} features --data DIR",
        features,
    ),
    "train": Command(
        "train head, rate levels and decoder, then the tails",
        (config_option, work_option, train_options),
        f"{RECIPE} train --data DIR --resume",
        train,
    ),
    "measure": Command(
        "measure packet sizes, agreement and mIoU of every level on held-out photos and CamVid val",
        (config_option, data_option, work_option, images_option),
        f"{RECIPE} measure --data DIR --images photos",
        measure,
    ),
    "calibrate": Command(
        "scale the gains until held-out packets have the config's mean sizes; measure again afterwards",
        (config_option, data_option, work_option),
        f"{RECIPE} calibrate --data DIR",
        calibrate,
    ),
    "curve": Command(
        "publish the measured figures as NAME.json, NAME.csv and NAME.png",
        (config_option, work_option, results_option, curve_options),
        f"{RECIPE} curve",
        curve,
    ),
    "evaluate": Command(
        "measure accuracy on the labelled test photos and enter the use in the log of test set uses",
        (config_option, data_option, work_option, results_option),
        f"{RECIPE} evaluate --data DIR",
        evaluate,
    ),
    "export": Command(
        "write the bundle of the last checkpoint and check it",
        (config_option, data_option, work_option, bundle_option, reference_option),
        f"{RECIPE} export --data DIR --bundle ../bundles/lite2-next --config configs/lite2-next.toml",
        export,
    ),
    "check": Command(
        "compare a bundle with PyTorch: integer head, packets, tails and references",
        (config_option, work_option, bundle_option),
        f"{RECIPE} check",
        check,
    ),
    "update-context": Command(
        "fit the context tables of an exported bundle again, and write all that depends on them",
        (config_option, data_option, bundle_option, results_option),
        f"{RECIPE} update-context --data DIR --bundle BUNDLE",
        update_context,
    ),
    "local": Command(
        "quantise the local network and add it to an exported bundle (a part of export where the config has [local])",
        (config_option, data_option, bundle_option, reference_option),
        f"{RECIPE} local --data DIR --bundle BUNDLE",
        local,
    ),
    "exit": Command(
        "calibrate on held-out photos from which confidence on the local network's answer is used (a part of local and export)",
        (config_option, data_option, bundle_option),
        f"{RECIPE} exit --data DIR --bundle BUNDLE",
        calibrate_exit,
    ),
    "gate": Command(
        "measure how far noise, movement and new objects move the features that the head's frame gate compares",
        (config_option, data_option, bundle_option, results_option),
        f"{RECIPE} gate --data DIR",
        gate,
    ),
    "task": Command(
        "add a classification task to an exported bundle, head and tables unchanged",
        (config_option, data_option, bundle_option, results_option, task_options),
        f"{RECIPE} task cat-or-dog --data DIR --out BUNDLE",
        task,
    ),
    "tail": Command(
        "train a cheaper tail for an exported bundle, whose head, tables and packets stay; measure and export it",
        (config_option, work_option, bundle_option, tail_options),
        f"{RECIPE} tail --config configs/lite2-tail.toml --data DIR --resume --minutes 10",
        tail,
    ),
    "custom": Command(
        "make a bundle from your own backbone and a folder of images",
        (custom_options, work_option, bundle_option),
        f"{RECIPE} custom --backbone torchvision:resnet18 --pretrained --split auto --side 224 --data photos --work w --bundle b",
        custom,
    ),
    "image-codecs": Command(
        "measure JPEG and WebP, classified and segmented by the unsplit networks, for comparison",
        (config_option, data_option, work_option, images_option),
        f"{RECIPE} image-codecs --data DIR",
        image_codecs,
    ),
    "compare": Command(
        "write one table and one plot of our levels, the baselines, JPEG and WebP",
        (config_option, work_option, results_option, compare_options),
        f"{RECIPE} compare --redraw",
        compare,
    ),
    "ablate": Command(
        "run the config's short trainings, each with one part changed, and tabulate them at equal bytes",
        (config_option, data_option, work_option, results_option),
        f"{RECIPE} ablate --config configs/ablations.toml --data DIR",
        ablate,
    ),
}
