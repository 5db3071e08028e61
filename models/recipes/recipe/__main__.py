"""`python -m recipe features|train|measure|curve|evaluate|export|local|check`."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path


def main() -> None:
    args = arguments()
    if not args.config.is_file():
        raise SystemExit(f"{args.config} is missing: run from models/recipes or pass --config")
    config = tomllib.loads(args.config.read_text())
    os.environ.setdefault("OMP_NUM_THREADS", str(config["threads"]))
    import torch

    torch.set_num_threads(config["threads"])
    torch.manual_seed(config["seed"])
    COMMANDS[args.command](config, args)


def features(config: dict, args: argparse.Namespace) -> None:
    from . import features as part

    part.run(config, args.work / "features", args.data)


def train(config: dict, args: argparse.Namespace) -> None:
    from . import road
    from . import train as part

    if args.part in ("all", "split"):
        part.run(config, args.work, args.resume)
    if args.part in ("all", "segment"):
        road.train(config, args.work, args.data, args.resume)
    if args.part in ("all", "adapt"):
        road.adapt(config, args.work, args.data, args.resume)


def measure(config: dict, args: argparse.Namespace) -> None:
    from . import measure as part

    if args.of in ("both", "photos"):
        part.photos(config, args.work, args.data)
    if args.of in ("both", "frames"):
        part.frames(config, args.work, args.data)


def curve(config: dict, args: argparse.Namespace) -> None:
    from . import measure as part

    part.curve(config, args.work, args.results)


def evaluate(config: dict, args: argparse.Namespace) -> None:
    from . import measure as part

    part.evaluate(config, args.work, args.data, args.results)


def export(config: dict, args: argparse.Namespace) -> None:
    from . import export as part

    part.run(config, args.work, args.data, bundle(config, args))
    local(config, args)


def local(config: dict, args: argparse.Namespace) -> None:
    from . import local as part

    part.run(config, args.data, bundle(config, args), args.reference)


def check(config: dict, args: argparse.Namespace) -> None:
    from . import check as part
    from .export import load

    part.run(load(config, args.work), bundle(config, args))


def bundle(config: dict, args: argparse.Namespace) -> Path:
    return args.bundle or Path("../bundles") / config["name"]


COMMANDS = {part.__name__: part for part in (features, train, measure, curve, evaluate, export, local, check)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="recipe", description="Train, measure and export a bundle.")
    parser.add_argument("command", choices=list(COMMANDS))
    parser.add_argument("--config", type=Path, default=Path("configs/lite2.toml"))
    parser.add_argument("--data", type=Path, help="folder with the data tars")
    parser.add_argument("--work", type=Path, default=Path("work"), help="features and checkpoints (default: work)")
    parser.add_argument("--bundle", type=Path, help="bundle folder (default: ../bundles/NAME)")
    parser.add_argument("--results", type=Path, default=Path("../results"), help="curves and plots (default: ../results)")
    parser.add_argument("--reference", action="store_true", help="export the local network in f32 as well (9 MB)")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--part", choices=["all", "split", "segment", "adapt"], default="all", help="what to train (default: all)")
    parser.add_argument("--of", choices=["both", "photos", "frames"], default="both", help="what to measure (default: both)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
