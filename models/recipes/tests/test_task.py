"""A task is added to the shipped bundle: its tail computes the new layer, head and tables are unchanged."""

import hashlib
import tomllib
from pathlib import Path

import numpy as np

from recipe import task
from recipe.check import session

SHIPPED = Path(__file__).resolve().parents[2] / "bundles" / "lite2"


def test_a_new_task_leaves_head_and_tables_unchanged(tmp_path: Path):
    bundle = task.open_bundle(SHIPPED)
    rng = np.random.default_rng(2)
    side = bundle.geometry["width"]
    pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
    features = bundle.decoded_features(pixels, 1)
    layer = (rng.normal(size=(2, len(features))).astype(np.float32), np.array([0.5, -0.5], np.float32))
    rows = [{"level": "unsplit", "bytes": "", "photos": 1, "accuracy": 1.0}]
    task.write(bundle, tmp_path, "which", ["this", "that"], {"tail": layer, "reference": layer}, rows, "")
    before, after = (tomllib.loads((folder / "manifest.toml").read_text()) for folder in (SHIPPED, tmp_path))
    assert [t["name"] for t in after["task"]] == [t["name"] for t in before["task"]] + ["which"]
    for name, digest in after["digests"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest, name
        assert name in ("CARD.md", "tail-which.onnx", "reference-which.onnx", "labels-which.tsv") or digest == before["digests"][name]
    step = np.float32(bundle.levels[1]["step"])
    feed = {bundle.task["latent"]: bundle.symbols(pixels, 1).astype(np.float32) * step, bundle.task["step"]: step[None]}
    answer = session(tmp_path / "tail-which.onnx").run(None, feed)[0]
    assert np.allclose(answer[0], features @ layer[0].T + layer[1], rtol=1e-4, atol=1e-4)


def test_the_fitted_layer_separates_separable_classes():
    rng = np.random.default_rng(3)
    classes = rng.integers(0, 3, 90)
    features = (rng.normal(size=(90, 5)) + 8 * np.eye(5)[classes]).astype(np.float32)
    weight, bias = task.fit(features, classes, 3)
    assert ((features @ weight.T + bias).argmax(1) == classes).all()
