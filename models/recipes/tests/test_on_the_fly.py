"""On-the-fly crops: their windows, their pixels, and training on them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import jpeg, tar

from recipe import backbone
from recipe.on_the_fly import OnTheFlyCrops
from recipe.train import Trainer

SIZES = [(96, 64), (64, 80), (70, 70)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    tar(folder / "photos.tar", {f"imagen-{number}.jpg": jpeg(rng, size) for number, size in enumerate(SIZES)})
    return folder


@pytest.fixture()
def plan(config: dict) -> dict:
    plan = copy.deepcopy(config)
    plan["data"] |= {"photos": ["photos.tar"], "held_out": 0, "crops": 2}
    plan["on_the_fly"] = {"native_share": 0.5, "zoom": [0.9, 1.2], "area": [0.4, 1.0], "colour_jitter": 0.3}
    return plan


@pytest.fixture()
def source(plan: dict, photos: Path) -> OnTheFlyCrops:
    return OnTheFlyCrops(plan, photos, backbone.load(), torch.device("cpu"))


def test_windows_lie_inside_their_photos(source: OnTheFlyCrops):
    sizes = source.sizes[np.arange(3000) % len(SIZES)]
    left, top, width, height = source.windows(np.random.default_rng(1), sizes).T
    ends = np.stack([left, left + width])
    assert ends.min() >= -1e-3 and (ends.max(0) <= sizes[:, 0] + 1e-3).all()
    assert top.min() >= 0 and (top + height <= sizes[:, 1] + 1e-3).all()
    assert 0.4 < (width < 0).mean() < 0.6
    assert (height == 64).mean() > 0.2  # the photo's own scale


def test_a_window_at_the_photos_own_scale_is_the_photo(source: OnTheFlyCrops):
    index = int(np.flatnonzero((source.sizes == (96, 64)).all(1))[0])
    cut = source.cut(np.array([index]), np.array([[10, 0, 64, 64]], np.float32))
    assert torch.allclose(cut[0], source.store[index, :, :64, 10:74].float(), atol=1e-3)


def test_a_step_draws_the_same_crops_again(source: OnTheFlyCrops):
    one, two = (source.draw(np.random.default_rng(5), 4, ("split", "logits")) for _ in range(2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1]["logits"], two[1]["logits"])
    assert torch.equal(one[0], one[0].round().clamp(0, 255))
    assert not torch.equal(one[0], source.draw(np.random.default_rng(6), 4, ())[0])


def test_resumed_with_a_learning_tail_is_bit_equal(plan: dict, photos: Path, work: Path, tmp_path: Path):
    plan["train"]["stage3"] |= {"tail_lr": 1e-4, "steps": 4}
    plan["train"]["noise_fade"] = 0.5
    straight = Trainer(plan, work, 0, 1, photos)
    straight.initialise()
    for _ in range(10):
        straight.advance()
        if straight.step == 8:
            straight.save(tmp_path / "student.pt")
    resumed = Trainer(plan, work, 0, 1, photos)
    resumed.load(tmp_path / "student.pt")
    while resumed.step < 10:
        resumed.advance()
    for name, value in straight.average.values.items():
        assert torch.equal(value, resumed.average.values[name]), name
    for name, value in straight.tail_average.values.items():
        assert torch.equal(value, resumed.tail_average.values[name]), name
    assert not torch.equal(straight.tail.classifier.weight, straight.net.classifier.weight)
