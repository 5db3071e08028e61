"""The cheaper tail: decoder, training that resumes with the same bits, targets, and the bundle with the new tail."""

import copy
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from recipe import (
    backbone,
    checkpoint,
    data,
    experiment,
    graph,
    manifest,
    tables,
    tail,
    tail_export,
    tail_measure,
    tail_targets,
    tail_variants,
)
from recipe.direct import DirectDecoder

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT.parent / "bundles/lite2"
CROPS = 4


def small(**changes) -> dict:
    """The config of the shipped tail with few channels and steps."""
    config = experiment.load(ROOT / "configs/lite2-tail.toml")
    config["tail"] |= {"bundle": str(BUNDLE), "width": 8, "blocks": 1, "crops": CROPS, "steps": 4, "batch": 2, "shallow_steps": 2}
    config["tail"] |= {"precision": "f32", "save_every": 2} | changes
    config["data"] |= {"photos": ["photos.tar"], "held_out": 2, "crops": 1, "camvid_crops": 1}
    return config


def add(archive: tarfile.TarFile, name: str, image: Image.Image, kind: str) -> None:
    file = io.BytesIO()
    image.save(file, kind)
    member = tarfile.TarInfo(name)
    member.size = len(file.getvalue())
    archive.addfile(member, io.BytesIO(file.getvalue()))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos, and one road frame to train on and one to measure."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(1)

    def smooth(size: tuple[int, int]) -> Image.Image:
        return Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize(size, Image.BICUBIC)

    with tarfile.open(folder / "photos.tar", "w") as archive:
        for index in range(5):
            add(archive, f"imagen-{index}.jpg", smooth((280, 260)), "JPEG")
    for part in ("train", "val"):
        with tarfile.open(folder / f"camvid-{part}.tar", "w") as archive:
            add(archive, "frame.jpg", smooth((480, 360)), "JPEG")
            add(archive, "frame.png", Image.fromarray(rng.integers(0, 12, (360, 480), np.uint8)), "PNG")
    return folder


@pytest.fixture(scope="module")
def teachers() -> tail_targets.Teachers:
    torch.set_num_threads(1)
    return tail_targets.Teachers(small(), torch.device("cpu"), None)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """A folder with a trained tail."""
    folder = tmp_path_factory.mktemp("tail")
    tail.run(small(), folder, source, False)
    return folder


@pytest.mark.parametrize("kind", ["dense", "separable"])
@pytest.mark.parametrize("finish", [0, 2])
def test_the_exported_decoder_computes_the_same(kind: str, finish: int, tmp_path: Path):
    torch.manual_seed(1)
    net = backbone.load()
    decoder = DirectDecoder(36, net, width=8, blocks=2, kind=kind, finish=finish).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    graph.tail(tmp_path / "tail.onnx", decoder, net, lambda g, x: graph.classify(g, net, x), ("logits", ["n", 1000]))
    latent, step = torch.randn(2, 36, 9, 11), torch.tensor([1.0, 4.0])
    inputs = {"latent": latent.numpy(), "step": step.numpy()}
    found = onnxruntime.InferenceSession(tmp_path / "tail.onnx", providers=["CPUExecutionProvider"]).run(None, inputs)[0]
    with torch.no_grad():
        wanted = net.back(decoder(latent, step)).logits.numpy()
    assert np.abs(found - wanted).max() < 0.02 * wanted.std()  # weights are stored as f16


def test_the_linear_part_starts_as_the_least_squares_estimate():
    torch.manual_seed(2)
    net = backbone.load()
    decoder = DirectDecoder(4, net, width=8, blocks=1)
    latent, truth = torch.randn(3, 4, 16, 16), torch.nn.Conv2d(4, 48, 3, padding=1)
    wanted = truth(latent).detach()
    decoder.initialise(latent, wanted)
    with torch.no_grad():
        assert (decoder(latent, torch.ones(3)) - wanted).abs().max() < 0.02


@pytest.mark.parametrize(
    "change, message", [({"kind": "wide"}, "known are dense, separable"), ({"finish": 3}, "has 2 blocks at the stride")]
)
def test_impossible_decoders_are_refused(change: dict, message: str, teachers: tail_targets.Teachers):
    with pytest.raises(SystemExit, match=message):
        tail.CheapTail(small(**change), teachers)


def test_a_gpu_trains_on_larger_batches():
    config = experiment.load(ROOT / "configs/lite2-tail.toml")
    slow, fast = (tail.plan_of(config, torch.device(name)) for name in ("cpu", "cuda"))
    assert slow["batch"] < fast["batch"] and slow["steps"] == fast["steps"] and "gpu" not in slow


def test_symbols_are_those_of_the_bundles_vectors(teachers: tail_targets.Teachers):
    vector = next(v for v in manifest.read(BUNDLE)["vector"] if v["geometry"] == "photo" and v["level"] == 2)
    pixels = torch.from_numpy(np.asarray(Image.open(BUNDLE / vector["image"]).convert("RGB"))).permute(2, 0, 1)[None].float()
    wanted = np.fromfile(BUNDLE / vector["symbols"], np.int8)
    assert (teachers.symbols(pixels, torch.tensor([2])).numpy().reshape(-1) != wanted).mean() < 2e-3


def test_cut_packets_hold_medians_in_the_missing_channels(teachers: tail_targets.Teachers):
    stored = tables.unpack((BUNDLE / "tables.bin").read_bytes())
    symbols, level = torch.full((2, 36, 3, 3), 99.0), torch.tensor([0, 3])
    found = teachers.cut(symbols, level, torch.tensor([2, len(stored.groups)]))
    kept = stored.order[: sum(stored.groups[:2])]
    for channel in range(36):
        wanted = 99 if channel in kept else stored.static[0][channel].median
        assert (found[0, channel] == wanted).all() and (found[1, channel] == 99).all()


def test_targets_continue_where_they_stopped(work: Path, source: Path, tmp_path: Path, teachers: tail_targets.Teachers):
    complete = tail_targets.StoredTargets(work / "tail-targets")
    assert complete.count == CROPS * 2 and complete.arrays["frame"].any() and not complete.arrays["frame"].all()
    shortened = tail_targets.BATCH
    try:
        tail_targets.BATCH = 1
        jobs = data.crop_jobs
        data.crop_jobs = lambda *arguments: stopping(jobs(*arguments), 2)
        with pytest.raises(KeyboardInterrupt):
            tail_targets.store(small(), tmp_path, source, teachers)
        data.crop_jobs = jobs
        tail_targets.store(small(), tmp_path, source, teachers)
    finally:
        tail_targets.BATCH, data.crop_jobs = shortened, jobs
    again = tail_targets.StoredTargets(tmp_path)
    for name, array in complete.arrays.items():
        assert np.allclose(array.astype(np.float32), again.arrays[name].astype(np.float32), atol=0.1, rtol=1e-2), name


def stopping(jobs: list, at: int) -> list:
    """The jobs, of which that at index `at` is interrupted."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    return [(kind, interrupted if index == at else cut) for index, (kind, cut) in enumerate(jobs)]


def test_a_resumed_training_ends_with_the_same_bits(work: Path, tmp_path: Path):
    for name in ("tail-targets", "tail-sensitivity.pt"):
        (tmp_path / name).symlink_to(work / name)
    trainer = tail.TailTrainer(small(), tmp_path, None)
    trainer.initialise()
    for _ in range(3):
        trainer.advance()
    trainer.save()
    tail.run(small(), tmp_path, None, True)
    straight, resumed = (checkpoint.load(folder / tail.FILE) for folder in (work, tmp_path))
    assert resumed["step"] == 4
    assert all(torch.equal(value, resumed["average"][name]) for name, value in straight["average"].items())


def test_new_crops_have_the_same_fields_as_stored_ones(work: Path, source: Path, teachers: tail_targets.Teachers):
    stored = tail_targets.StoredTargets(work / "tail-targets").rows(np.arange(2))
    fresh = tail_targets.FreshTargets(small(), source, teachers).draw(np.random.default_rng(1), 2)
    assert {name: value.shape for name, value in fresh.items()} == {name: value.shape for name, value in stored.items()}


def test_training_on_new_crops_makes_a_step(source: Path, tmp_path: Path, teachers: tail_targets.Teachers, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tail, "SENSITIVITY_ROWS", 2)
    monkeypatch.setattr(tail, "INITIAL_ROWS", 2)
    monkeypatch.setattr(tail, "StoredTargets", lambda _: tail_targets.FreshTargets(small(), source, teachers))  # as on a GPU
    trainer = tail.TailTrainer(small(shallow_steps=0), tmp_path, None)
    trainer.initialise()
    before = {name: value.clone() for name, value in trainer.tail.state_dict().items()}
    assert {"split", "stride16", "stride32", "logits", "unsplit32", "unsplit"} <= trainer.advance().keys()
    changed = {name.split(".")[0] for name, value in trainer.tail.state_dict().items() if not torch.equal(value, before[name])}
    assert {"decoder", "net"} <= changed


def test_training_for_some_minutes_ends(work: Path, tmp_path: Path):
    for name in ("tail-targets", "tail-sensitivity.pt"):
        (tmp_path / name).symlink_to(work / name)
    tail.run(small(), tmp_path, None, False, minutes=0.001)
    assert checkpoint.load(tmp_path / tail.FILE)["step"] >= 1


def test_all_variants_answer_like_the_f32_tails(work: Path, source: Path):
    tail_variants.run(small(), work, source, 2)
    rows = {row["file"]: row for row in json.loads((work / "variants/variants.json").read_text())}
    assert all(rows[name]["same"] == 1 for name in ("classify-head.onnx", "segment-head.onnx", "segment-map.onnx"))
    assert rows["classify-f16.onnx"]["same"] > 0.9 and rows["segment-f16.onnx"]["same"] > 0.9
    assert rows["classify-int8.onnx"]["bytes"] < 0.6 * rows["classify-f16.onnx"]["bytes"]


def test_the_bundle_keeps_what_the_device_reads(work: Path, source: Path, tmp_path: Path):
    tail_measure.run(small(), work, source)
    tail_export.run(small(), work, source, tmp_path / "bundle")
    before, after = manifest.read(BUNDLE), manifest.read(tmp_path / "bundle")
    assert after["level"] == before["level"] and after["head"] == before["head"] and after["name"] == "lite2-tail"
    assert {name for name, value in after["digests"].items() if value != before["digests"].get(name)} == {
        "CARD.md",
        *(task["tail"] for task in after["task"]),
        *(output["file"] for vector in after["vector"] for output in vector["output"]),
    }
    cuts = json.loads((work / "tail.json").read_text())["cuts"]
    assert [row["channels"] for row in cuts] == [2, 3, 4, 5, 9]
    assert "2 photos that the tail was not trained on" in (tmp_path / "bundle/CARD.md").read_text()


def test_the_interval_of_equal_answers_is_empty():
    same = np.array([True, False, True])
    assert tail_measure.interval(same, same) == [0.0, 0.0]


def test_the_bundle_itself_is_not_overwritten(work: Path, source: Path):
    config = copy.deepcopy(small())
    with pytest.raises(SystemExit, match="give another --bundle"):
        tail_export.run(config, work, source, BUNDLE)
