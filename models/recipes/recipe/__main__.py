"""`python -m recipe make|features|train|measure|settle|images|curve|compare|evaluate|export|refit|local|task|ablate|check|new`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from . import experiment


def main() -> None:
    args = arguments()
    if args.command == "custom":
        os.environ.setdefault("OMP_NUM_THREADS", str(args.threads))
        from .custom import workflow

        workflow.run(args)
        return
    if args.data is None and (args.command in READERS or args.command == "train" and args.part not in ("split", "classify")):
        raise SystemExit(f"{args.command} reads photos: give it the folder with the tars, --data DIR")
    config = experiment.load(args.config)
    threads = config.get("threads", 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(config.get("seed", 0))
    COMMANDS[args.command](config, args)


def make(config: dict, args: argparse.Namespace) -> None:
    """From a config to its bundle, in the order that one step needs the other."""
    from . import calibrate as part

    if "baseline" in config:
        raise SystemExit(f"{config['name']} is a baseline: it is trained and measured, there is no bundle of it")
    args.resume = True
    features(config, args)
    trained(config, args, "split", "classify")
    if "packet_bytes" in config["levels"] and not part.is_calibrated(args.work):
        measured(config, args, "photos")
        calibrate(config, args)
    trained(config, args, "segment", "adapt")
    measured(config, args, "both")
    for step in (curve, export, check):
        step(config, args)


def features(config: dict, args: argparse.Namespace) -> None:
    from . import features as part

    part.run(config, args.work / "features", args.data)


def train(config: dict, args: argparse.Namespace) -> None:
    from .baselines import measure as baselines
    from .baselines import train as baseline

    if "baseline" in config:
        if args.part in ("all", "split"):
            baseline.run(config, args.work, args.resume, args.setting)
        if args.part in ("all", "adapt"):
            baselines.adapt(config, args.work, args.data, args.resume)
        return
    trained(config, args, *(PARTS if args.part == "all" else (args.part,)))


def trained(config: dict, args: argparse.Namespace, *parts: str) -> None:
    from . import classify, train_segmenter
    from . import train as part

    if "split" in parts:
        part.run(config, args.work, args.resume, args.data)
    if "classify" in parts and "classify" in config:
        classify.run(config, args.work, args.resume)
    if "segment" in parts:
        train_segmenter.train(config, args.work, args.data, args.resume)
    if "adapt" in parts:
        train_segmenter.adapt(config, args.work, args.data, args.resume)


def measure(config: dict, args: argparse.Namespace) -> None:
    from .baselines import measure as baselines

    if "baseline" in config:
        baselines.run(config, args.work, args.data, args.of)
    else:
        measured(config, args, args.of)


def measured(config: dict, args: argparse.Namespace, of: str) -> None:
    from . import measure as part

    if of in ("both", "photos"):
        part.photos(config, args.work, args.data)
    if of in ("both", "frames"):
        part.frames(config, args.work, args.data)


def calibrate(config: dict, args: argparse.Namespace) -> None:
    from . import calibrate as part

    part.run(config, args.work, args.data)


def image_codecs(config: dict, args: argparse.Namespace) -> None:
    from . import image_codecs as part

    part.run(config, args.work, args.data, args.of)


def compare(config: dict, args: argparse.Namespace) -> None:
    from . import compare as part

    part.run(config, args.config, args.work, args.results / args.campaign)


def curve(config: dict, args: argparse.Namespace) -> None:
    from . import measure as part

    part.curve(config, args.work, args.results)


def evaluate(config: dict, args: argparse.Namespace) -> None:
    from . import measure as part
    from .baselines import measure as baselines

    (baselines if "baseline" in config else part).evaluate(config, args.work, args.data, args.results)


def export(config: dict, args: argparse.Namespace) -> None:
    from . import export as part

    part.run(config, args.work, args.data, bundle(config, args))
    if "local" in config:
        local(config, args)


def update_context(config: dict, args: argparse.Namespace) -> None:
    from . import update_context as part

    part.run(config, args.data, bundle(config, args), args.results)


def local(config: dict, args: argparse.Namespace) -> None:
    from . import local as part

    part.run(config, args.data, bundle(config, args), args.reference)


def task(config: dict, args: argparse.Namespace) -> None:
    from . import task as part

    if not args.name:
        raise SystemExit("which task? python -m recipe task NAME")
    folder = bundle(config, args)
    part.run(config, args.data, folder, args.out or folder, args.name, args.labels, args.results)


def ablate(config: dict, args: argparse.Namespace) -> None:
    from . import ablate as part

    part.run(config, args.work, args.data, args.results)


def check(config: dict, args: argparse.Namespace) -> None:
    from . import check as part
    from .export import load

    part.run(load(config, args.work), bundle(config, args))


def bundle(config: dict, args: argparse.Namespace) -> Path:
    return args.bundle or Path("../bundles") / config["name"]


PARTS = ("split", "classify", "segment", "adapt")  # of training
COMMANDS = {
    part.__name__.replace("_", "-"): part
    for part in (
        make,
        features,
        train,
        measure,
        calibrate,
        image_codecs,
        curve,
        compare,
        evaluate,
        export,
        update_context,
        local,
        task,
        ablate,
        check,
    )
}
READERS = (
    "make",
    "features",
    "measure",
    "calibrate",
    "image-codecs",
    "evaluate",
    "export",
    "update-context",
    "local",
    "task",
    "ablate",
)  # of --data


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="recipe", description="Train, measure and export a bundle.")
    parser.add_argument("command", choices=[*COMMANDS, "custom"])
    parser.add_argument("name", nargs="?", help="of the task that `task` adds, of the bundle that `new` makes")
    parser.add_argument("--config", type=Path, default=Path("configs/lite2.toml"))
    parser.add_argument("--data", type=Path, help="folder with the data tars")
    parser.add_argument("--work", type=Path, default=Path("work"), help="features and checkpoints (default: work)")
    parser.add_argument("--bundle", type=Path, help="bundle folder (default: ../bundles/NAME)")
    parser.add_argument("--out", type=Path, help="where `task` writes the larger bundle (default: into --bundle)")
    parser.add_argument("--labels", type=Path, help="of `task`: CSV with the columns file, label; of `new`: class names, one a line")
    parser.add_argument("--results", type=Path, default=Path("../results"), help="curves and plots (default: ../results)")
    parser.add_argument("--reference", action="store_true", help="export the local network in f32 as well (9 MB)")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--part", choices=["all", *PARTS], default="all", help="what to train (default: all)")
    parser.add_argument("--campaign", default="baselines", help="name of the table and plot of `compare` (default: baselines)")
    parser.add_argument("--setting", type=float, help="train only this setting of a baseline's sweep")
    parser.add_argument("--of", choices=["both", "photos", "frames"], default="both", help="what to measure (default: both)")
    new = parser.add_argument_group("new")
    new.add_argument("--backbone", help="timm:NAME, torchvision:NAME or onnx:FILE")
    new.add_argument("--pretrained", action="store_true", help="fetch the library's weights (default: random ones, or --weights)")
    new.add_argument("--weights", type=Path, help="state dict of the backbone")
    new.add_argument("--split", help="layer to cut behind, or auto (default: list them and stop)")
    new.add_argument("--side", type=int, help="image side in pixels (default: the network's own)")
    new.add_argument("--tasks", default="classify", help="classify, and tasks named by the folders of --data (default: classify)")
    new.add_argument("--crops", type=int, default=4, help="training crops of each image (default: 4)")
    new.add_argument("--steps", type=int, default=6000, help="of training, all stages (default: 6000)")
    new.add_argument("--width", type=int, default=96, help="channels of the decoder (default: 96)")
    new.add_argument("--threads", type=int, default=1, help="processes of features and training (default: 1)")
    new.add_argument("--seed", type=int, default=1, help="default: 1")
    return parser.parse_args()


if __name__ == "__main__":
    main()
