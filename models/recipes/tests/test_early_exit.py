"""The early exit: which threshold is chosen, and that the manifest alone changes."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest

from recipe import early_exit
from recipe.check import is_sound
from recipe.early_exit import Answers, choose, confidence, curve, paired_difference
from recipe.manifest import digest

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/lite2"


def answers(wrong_below: float, split_wrong: int = 0) -> Answers:
    """1000 photos of rising confidence; the local network errs below `wrong_below`, the split in the last `split_wrong` photos."""
    sure = np.linspace(0.0005, 0.9995, 1000)
    return Answers(sure, sure >= wrong_below, np.arange(1000) < 1000 - split_wrong, np.full(1000, 5000.0))


def test_the_smallest_threshold_without_a_loss_is_chosen():
    assert choose(curve(answers(0.4))) == 0.4
    # A local network that is right wherever the split is: everything may stay.
    assert choose(curve(answers(0.0, 10))) == 0.0
    # One that is right only where it is quite sure: nothing may stay.
    assert choose(curve(answers(0.99))) == 1.0


def test_the_curve_begins_with_all_kept_and_ends_with_all_sent():
    points = curve(answers(0.4, 50))
    assert points[0] == {"threshold": 0.0, "kept": 1.0, "agreement": 0.6, "bytes": 0.0}
    assert points[10] == {"threshold": 0.5, "kept": 0.5, "agreement": 1.0, "bytes": 2500.0}
    assert points[-1] == {"threshold": 1.0, "kept": 0.0, "agreement": 0.95, "bytes": 5000.0}


def test_the_interval_is_that_of_the_benchmarks():
    first, second = np.repeat([True, False, True], [132, 107, 905]), np.repeat([False, True, True], [132, 107, 905])
    assert paired_difference(first, second) == pytest.approx((-0.00464, 0.04827), abs=1e-4)
    assert paired_difference(first, first)[0] < 0 < paired_difference(first, first)[1]


def test_the_confidence_is_the_probability_of_the_first_class():
    assert confidence(np.log(np.array([0.1, 0.7, 0.2], np.float32))) == pytest.approx(0.7, abs=1e-6)
    assert confidence(np.full(4, 1000, np.float32)) == 0.25


def test_the_shipped_exit_is_sound_and_broken_ones_are_not():
    shipped = tomllib.loads((BUNDLE / "manifest.toml").read_text())["local"]["exit"]
    assert is_sound(shipped)
    assert choose(shipped["curve"]) == shipped["threshold"]
    for key, value in (("threshold", 0.123), ("photos", 0), ("curve", shipped["curve"][::-1]), ("curve", shipped["curve"][:1])):
        assert not is_sound(shipped | {key: value}), key
    for key, value in (("threshold", 2.0), ("kept", 0.99), ("agreement", -0.1), ("bytes", 1e6)):
        wrong = [point | {key: value} if index == 5 else point for index, point in enumerate(shipped["curve"])]
        assert not is_sound(shipped | {"curve": wrong}), key


def test_a_bundle_keeps_every_file_but_its_manifest(tmp_path: Path):
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    points = curve(answers(0.4))
    entry = {"threshold": 0.4, "photos": 1000, "judge": "EfficientNet-Lite1", "curve": points}
    early_exit.write(folder, entry)
    before, after = (tomllib.loads((path / "manifest.toml").read_text()) for path in (BUNDLE, folder))
    assert after["format"] == 3 and after["local"].pop("exit") == entry
    before["local"].pop("exit", None)
    assert after | {"format": 0} == before | {"format": 0}
    assert all(digest(folder / name) == found for name, found in after["digests"].items())
