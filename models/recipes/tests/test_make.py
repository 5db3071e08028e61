"""One config, one command, one bundle; and the same bundle after a kill."""

import argparse
import copy
import io
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import jpeg, tar
from PIL import Image

from recipe import __main__ as recipe
from recipe import calibrate, train_segmenter

FRAME = (96, 64)  # of the tars


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
    plan["frame"] = {"width": 480, "height": 360}  # of the sample frames that vectors are made of
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


def given(data: Path, folder: Path) -> argparse.Namespace:
    return argparse.Namespace(data=data, work=folder / "work", bundle=folder / "bundle", results=folder, reference=False)


def digests(folder: Path) -> dict[str, str]:
    return tomllib.loads((folder / "manifest.toml").read_text())["digests"]


def test_a_killed_make_ends_with_the_same_bundle(plan: dict, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.set_num_threads(1)
    straight, broken = given(data, tmp_path / "a"), given(data, tmp_path / "b")
    for args in (straight, broken):
        args.work.mkdir(parents=True)
    recipe.make(plan, straight)
    assert calibrate.is_calibrated(straight.work)
    assert len(tomllib.loads((straight.bundle / "manifest.toml").read_text())["level"]) == 3
    for name in ("tiny.csv", "tiny.png"):
        assert (straight.results / name).is_file()

    def kill(*_) -> None:
        raise KeyboardInterrupt

    for place in ("calibrate", "curve"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(recipe, place, kill)
            recipe.make(plan, broken)
    recipe.make(plan, broken)
    assert digests(broken.bundle) == digests(straight.bundle)


def test_features_of_another_number_of_items_are_refused(plan: dict, data: Path, tmp_path: Path):
    train_segmenter.features(plan, tmp_path / "camvid", data, 2, None)
    for count in (1, 3):
        with pytest.raises(SystemExit, match=f"camvid was begun for 2 items, the config makes {count}"):
            train_segmenter.features(plan, tmp_path / "camvid", data, count, None)


def test_a_founding_system_has_no_bundle(data: Path, tmp_path: Path):
    with pytest.raises(SystemExit, match="baseline"):
        recipe.make({"name": "bottlefit", "baseline": {}}, given(data, tmp_path))


def test_what_reads_photos_asks_for_them(monkeypatch: pytest.MonkeyPatch):
    for command in (*recipe.READERS, "train"):
        monkeypatch.setattr("sys.argv", ["recipe", command])
        with pytest.raises(SystemExit, match=f"{command} reads photos.*--data DIR"):
            recipe.main()
