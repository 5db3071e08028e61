"""A tiny experiment for all tests: eight smooth random crops with the teacher's features."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recipe import backbone, loss
from recipe.features import FIELDS, FeatureCache, teacher_features

SIDE = 64


def jpeg(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    """A smooth random photo as JPEG."""
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(size, Image.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> None:
    """An uncompressed tar of files by name."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="session")
def config() -> dict:
    stage = {"adam_lr": 1e-3, "muon_lr": 0.02, "decay_share": 0.5}
    terms = {"sketch": 2.0, "split": 0.5, "stride16": 1.0, "stride32": 1.0, "logits": 0.1}
    train = {"batch": 2, "ema_decay": 0.9, "rate_weight": 0.08, "loss_weights": terms}
    return {
        "seed": 7,
        "threads": 1,
        "backbone": {"name": "lite2"},
        "photo": {"side": SIDE},
        "data": {"crop_side": SIDE},
        "head": {"width": 16, "latent": 8},
        "decoder": {"width": 16, "blocks_before": 1, "blocks_after": 1},
        "levels": {"target_bytes": [300, 150], "gains": [1.0, 0.5], "probability": [0.5, 0.5], "loss_weight": [1.0, 0.5], "default": 0},
        "train": train | {"stage1": stage | {"steps": 2}, "stage2": stage | {"steps": 4}, "stage3": stage | {"steps": 2}},
    }


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory, config: dict) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "features").mkdir()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    net = backbone.load()
    smooth = torch.nn.functional.interpolate(torch.rand(8, 3, 9, 9), SIDE, mode="bicubic").clamp(0, 1)
    pixels = (smooth * 255).round()
    targets = teacher_features(net, pixels)
    np.save(folder / "features" / "pixels.npy", pixels.permute(0, 2, 3, 1).numpy().astype(np.uint8))
    for name in FIELDS:
        np.save(folder / "features" / f"{name}.npy", targets[name].numpy())
    (folder / "features" / "done.json").write_text('{"count": 8}')
    cache = FeatureCache(folder / "features")
    weights = loss.sensitivity(net, cache, 8, 1)
    weights["patch"] = loss.patch_metric(net, cache, weights, config["train"]["loss_weights"], 8, 1)
    torch.save(weights, folder / "sensitivity.pt")
    return folder
