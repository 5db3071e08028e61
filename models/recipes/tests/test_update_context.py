"""What `update-context` writes besides the tables, and the segmentation tail that is read from a bundle."""

import shutil
import tomllib
from pathlib import Path

import numpy as np
import torch

from recipe import backbone, segmenter, update_context
from recipe.check import session
from recipe.manifest import digest

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/lite2"
CONFIG = {"backbone": {"name": "lite2"}}


def test_card_and_manifest_have_the_new_sizes_and_digests(tmp_path: Path):
    folder = tmp_path / "bundle"
    shutil.copytree(BUNDLE, folder)
    before = tomllib.loads((folder / "manifest.toml").read_text())
    (folder / "tables.bin").write_bytes(b"other")
    levels = range(len(before["level"]))
    near, far = [float(500 - k) for k in levels], [float(9000 - k) for k in levels]
    update_context.write_sizes(folder, near, far)
    after = tomllib.loads((folder / "manifest.toml").read_text())
    assert [level["bytes"] for level in after["level"]] == near
    assert after["digests"].keys() == before["digests"].keys()
    assert all(digest(folder / name) == found for name, found in after["digests"].items())
    card = (folder / "CARD.md").read_text()
    assert all(f"| {photo:.0f} |" in card and f"| {frame:.0f} |" in card for photo, frame in zip(near, far, strict=True))
    for manifest in (before, after):
        del manifest["digests"]
        for level in manifest["level"]:
            del level["bytes"]
    assert after == before


def test_without_a_checkpoint_the_segmentation_tail_is_the_bundles(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(BUNDLE.parents[1] / "recipes")
    net = backbone.load("lite2")
    tail = segmenter.load(CONFIG, net, tmp_path, "segment.pt").eval()
    pixels = np.random.default_rng(3).integers(0, 256, (1, 64, 96, 3), np.uint8)
    with torch.inference_mode():
        found = tail(net.front(torch.from_numpy(pixels).permute(0, 3, 1, 2).float())).numpy()
    wanted = session(BUNDLE / "reference-segment.onnx").run(None, {"image": pixels})[0]
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < 0.02 * wanted.std()
