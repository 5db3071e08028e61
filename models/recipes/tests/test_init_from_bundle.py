"""A student initialised from the shipped bundle reproduces the symbols and outputs of the bundle's vectors."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recipe import backbone, init_from_bundle
from recipe.student import Student

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT.parent / "bundles/lite2"
CONFIG = tomllib.loads((ROOT / "configs/lite2.toml").read_text())


def test_the_bundles_vectors_are_reproduced():
    student, net = Student(CONFIG).eval(), backbone.load()
    init_from_bundle.load(student, BUNDLE)
    vectors = [vector for vector in tomllib.loads((BUNDLE / "manifest.toml").read_text())["vector"] if vector["geometry"] == "photo"]
    assert vectors
    for vector in vectors:
        pixels = torch.from_numpy(np.asarray(Image.open(BUNDLE / vector["image"]).convert("RGB"))).permute(2, 0, 1)[None].float()
        wanted = np.fromfile(BUNDLE / vector["symbols"], np.int8)
        with torch.inference_mode():
            symbols, split = student.transmit(pixels, vector["level"], net)
            logits = net.back(split).logits[0]
        differs = symbols.numpy().reshape(-1) != wanted
        assert differs.mean() < 2e-3  # a sum in floating point can round to the neighbouring symbol
        answer = next(output for output in vector["output"] if output["task"] == "classify")
        stored = torch.from_numpy(np.fromfile(BUNDLE / answer["file"], "<f4"))
        assert torch.allclose(logits, stored, atol=0.15 * stored.std().item())
        assert logits.argmax() == stored.argmax()


@pytest.mark.parametrize(
    "part, key, value", [("head", "latent", 16), ("head", "width", 40), ("decoder", "blocks_before", 1), ("decoder", "width", 64)]
)
def test_other_sizes_are_refused_by_name(part: str, key: str, value: int):
    config = CONFIG | {part: CONFIG[part] | {key: value}}
    with pytest.raises(SystemExit, match=r"has .* of \(.*\), the config makes"):
        init_from_bundle.load(Student(config), BUNDLE)


def test_a_level_that_the_bundle_lacks_starts_at_the_configs_gain():
    levels = CONFIG["levels"] | {"gains": [*CONFIG["levels"]["gains"], 0.03]}
    student = Student(CONFIG | {"levels": levels})
    init_from_bundle.load(student, BUNDLE)
    shipped = tomllib.loads((BUNDLE / "manifest.toml").read_text())["level"]
    assert student.levels.gains().tolist() == pytest.approx([*(level["gain"] for level in shipped), 0.03])


def test_fewer_levels_than_the_bundles_are_refused():
    with pytest.raises(SystemExit, match="has levels.log_gain of"):
        init_from_bundle.load(Student(CONFIG | {"levels": CONFIG["levels"] | {"gains": [1.0, 0.5]}}), BUNDLE)


def test_a_folder_without_a_bundle_is_named(tmp_path: Path):
    with pytest.raises(SystemExit, match="manifest.toml is missing: .* is no bundle"):
        init_from_bundle.load(Student(CONFIG), tmp_path)
