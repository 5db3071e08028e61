"""`make` writes a bundle from a config, and the same bundle if it is killed and started again."""

import copy
import io
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import jpeg, tar
from PIL import Image

from recipe import calibrate, measure, pipeline, train_segmenter

FRAME = (96, 64)  # width and height of the frames in the tars


def png(rng: np.random.Generator, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 12, (4, 4), np.uint8)).resize(size, Image.NEAREST).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(5)
    tar(folder / "photos.tar", {f"imagen-{number}.jpg": jpeg(rng, (90, 80)) for number in range(12)})
    for name in ("train", "val"):
        frames = {f"{number}.jpg": jpeg(rng, FRAME) for number in range(3)} | {f"{number}.png": png(rng, FRAME) for number in range(3)}
        tar(folder / f"camvid-{name}.tar", frames)
    (folder / "classes.txt").write_text("\n".join(f"class {number}" for number in range(1000)))
    return folder


@pytest.fixture()
def plan(config: dict) -> dict:
    plan = copy.deepcopy(config) | {"name": "tiny"}
    plan["data"] |= {
        "photos": ["photos.tar"],
        "camvid_train": "camvid-train.tar",
        "camvid_val": "camvid-val.tar",
        "class_names": "classes.txt",
        "held_out": 3,
        "crops": 2,
        "camvid_crops": 1,
        "crop_short_side": 72,
        "crop_zoom": [0.95, 1.1],
        "crop_area": [0.5, 1.0],
    }
    plan["photo"] |= {"short_side": 72}
    plan["frame"] = {"width": 480, "height": 360}  # the size of the sample frame, which becomes a vector
    plan["levels"] |= {
        "target_bytes": [300, 150, 60],
        "gains": [1.0, 0.5, 0.2],
        "probability": [0.5, 0.5, 0.0],
        "loss_weight": [1.0, 0.5, 0.1],
    }
    plan["levels"]["packet_bytes"] = [260, 140, 60]
    plan["on_the_fly"] = {"native_share": 0.5, "zoom": [0.9, 1.2], "area": [0.4, 1.0], "colour_jitter": 0.3}
    plan["codec"] = {"table_crops": 8, "order_crops": 2, "indexed_tables": 2}
    part = {"steps": 2, "batch": 2, "lr": 1e-3, "weight_decay": 1e-3, "ema_decay": 0.9}
    plan["segment"] = {"variants": 2, "items": 4, "decoded_items": 2, "fit": part, "adapt": part}
    return plan


@dataclass
class Folders:
    """Where one run of `make` writes."""

    work: Path
    bundle: Path
    results: Path

    @staticmethod
    def inside(folder: Path) -> "Folders":
        (folder / "work").mkdir(parents=True)
        return Folders(folder / "work", folder / "bundle", folder)

    def make(self, plan: dict, data: Path) -> None:
        pipeline.make(plan, data, self.work, self.bundle, self.results)


def digests(folder: Path) -> dict[str, str]:
    return tomllib.loads((folder / "manifest.toml").read_text())["digests"]


def test_a_killed_make_ends_with_the_same_bundle(plan: dict, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(1)
    straight, killed = Folders.inside(tmp_path / "a"), Folders.inside(tmp_path / "b")
    straight.make(plan, data)
    assert calibrate.is_calibrated(straight.work)
    assert len(tomllib.loads((straight.bundle / "manifest.toml").read_text())["level"]) == 3
    for name in ("tiny.csv", "tiny.png"):
        assert (straight.results / name).is_file()

    def kill(*_) -> None:
        raise KeyboardInterrupt

    for module, step in ((calibrate, "run"), (measure, "curve")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, step, kill)
            killed.make(plan, data)
    killed.make(plan, data)
    assert digests(killed.bundle) == digests(straight.bundle)


def test_features_of_another_number_of_items_are_refused(plan: dict, data: Path, tmp_path: Path):
    train_segmenter.features(plan, tmp_path / "camvid", data, 2, None)
    for count in (1, 3):
        with pytest.raises(SystemExit, match=f"camvid was created for 2 items, the config has {count}"):
            train_segmenter.features(plan, tmp_path / "camvid", data, count, None)


def test_a_baseline_has_no_bundle(data: Path, tmp_path: Path):
    with pytest.raises(SystemExit, match="is a baseline"):
        Folders.inside(tmp_path / "a").make({"name": "bottlefit", "baseline": {}}, data)
