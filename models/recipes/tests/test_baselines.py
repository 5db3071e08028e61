"""The baselines: published sizes, the shape of their split features, and resuming."""

from pathlib import Path

import pytest
import torch

from recipe import complexity
from recipe.backbone import normalise
from recipe.baselines.networks import INITIAL_STD, BottleFit, EntropicStudent
from recipe.baselines.train import Trainer, run

WIDTH, FEATURES = 16, 48


def nets() -> list:
    return [BottleFit(6, WIDTH, FEATURES), EntropicStudent(24, WIDTH, FEATURES, "gdn"), EntropicStudent(24, WIDTH, FEATURES, "relu")]


@pytest.mark.parametrize("net", nets(), ids=["bottlefit", "gdn", "relu"])
@pytest.mark.parametrize("size", [(224, 224), (256, 256), (360, 480)])
def test_decoders_give_split_features_of_the_right_size(net, size):
    if net.has_prior:
        net.prior.update(force=True)
    sent = net.eval().transmit(torch.zeros(1, 3, *size))
    assert sent.split.shape == (1, FEATURES, size[0] // 8, size[1] // 8)


def test_encoders_have_the_published_cost():
    image = torch.zeros(1, 3, 224, 224)
    bottlefit, student = BottleFit(3, WIDTH, FEATURES).encoder.eval(), EntropicStudent(24, WIDTH, FEATURES, "gdn").encoder
    assert round(complexity.macs([student], lambda: student(image)) / 1e6) == 588
    assert complexity.parameters([student]) == 138_672
    assert 118e6 < complexity.macs([bottlefit], lambda: bottlefit(image)) < 121e6
    assert 10_300 < complexity.parameters([bottlefit]) < 10_500


def test_eight_bit_symbols_take_a_byte_each_and_use_the_full_range():
    net = BottleFit(3, WIDTH, FEATURES).eval()
    sent = net.transmit(torch.rand(1, 3, 224, 224) * 255)
    assert sent.symbols.shape == (3, 29, 29)
    assert sent.bytes == 12 + 8 + 3 * 29 * 29
    assert sent.symbols.min() == -128 and sent.symbols.max() == 127


@pytest.mark.parametrize(
    "baseline",
    [
        {"kind": "bottlefit", "settings": [3], "width": WIDTH, "warm_start": False},
        {"kind": "entropic-student", "settings": [16], "channels": 4, "width": WIDTH, "activation": "gdn", "warm_start": True},
    ],
    ids=["bottlefit", "entropic-student"],
)
def test_resumed_run_is_bit_equal(config: dict, work: Path, baseline: dict, tmp_path: Path):
    stage1 = {"steps": 3, "batch": 2, "lr": 1e-3, "lr_drops": [0.5]}
    stage2 = {"steps": 3, "batch": 2, "method": "kd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "lr_drops": [0.5]}
    plan = {"seed": 7, "backbone": config["backbone"], "name": "tiny", "baseline": baseline, "stage1": stage1, "stage2": stage2}
    setting = baseline["settings"][0]
    straight = Trainer(plan, work, setting)
    kept = {}
    for step in range(1, 7):
        straight.advance()
        if step in (2, 4):
            kept[step] = tmp_path / f"{step}.pt"
            straight.save(kept[step])
    for path in kept.values():
        resumed = Trainer(plan, work, setting)
        resumed.load(path)
        while resumed.step < 6:
            resumed.advance()
        for one, other in ((straight.student, resumed.student), (straight.tail, resumed.tail)):
            for (name, value), again in zip(one.named_parameters(), other.parameters(), strict=True):
                assert torch.equal(value, again), name


def test_second_stage_keeps_the_encoder_fixed(config: dict, work: Path):
    baseline = {"kind": "entropic-student", "settings": [16], "channels": 4, "width": WIDTH, "activation": "gdn", "warm_start": True}
    stage1 = {"steps": 1, "batch": 2, "lr": 1e-3, "lr_drops": []}
    stage2 = {"steps": 2, "batch": 2, "method": "ft", "lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "lr_drops": []}
    plan = {"seed": 7, "backbone": config["backbone"], "name": "tiny", "baseline": baseline, "stage1": stage1, "stage2": stage2}
    trainer = Trainer(plan, work, 16)
    trainer.advance()
    before = [p.clone() for part in trainer.student.device() for p in part.parameters()]
    decoder = trainer.student.decoder[0].weight.clone()
    for _ in range(2):
        trainer.advance()
    assert all(torch.equal(p, q) for p, q in zip(before, (p for part in trainer.student.device() for p in part.parameters()), strict=True))
    assert not torch.equal(decoder, trainer.student.decoder[0].weight)


def test_the_rate_weight_rises_over_its_share_of_the_first_stage(config: dict, work: Path):
    baseline = {"kind": "entropic-student", "settings": [16], "channels": 4, "width": WIDTH, "activation": "relu", "warm_start": True}
    stage1 = {"steps": 10, "batch": 2, "lr": 1e-3, "lr_drops": [], "rate_warmup": 0.4}
    plan = {"seed": 7, "backbone": config["backbone"], "name": "tiny", "baseline": baseline, "stage1": stage1, "stage2": {"steps": 1}}
    trainer = Trainer(plan, work, 16)
    scales = []
    for trainer.step in (0, 2, 4, 9):
        scales.append(trainer.rate_scale())
    assert scales == [0.0, 0.5, 1.0, 1.0]


def test_a_coarser_setting_continues_from_the_first_stage_of_the_finer_one(config: dict, work: Path, tmp_path: Path):
    baseline = {
        "kind": "entropic-student",
        "settings": [16, 48, 144],
        "channels": 4,
        "width": WIDTH,
        "activation": "relu",
        "warm_start": True,
    }
    stage1 = {"steps": 3, "warm_start_steps": 2, "batch": 2, "lr": 1e-3, "lr_drops": [], "rate_warmup": 1.0}
    stage2 = {"steps": 1, "batch": 2, "method": "kd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "lr_drops": []}
    plan = {"seed": 7, "backbone": config["backbone"], "name": "tiny", "baseline": baseline, "stage1": stage1, "stage2": stage2}
    (tmp_path / "features").symlink_to(work / "features")
    run(plan, tmp_path, resume=False)
    states = [torch.load(tmp_path / f"tiny-{setting}.pt", weights_only=True) for setting in baseline["settings"]]
    assert [(state["step"], state["inherited"]) for state in states] == [(4, 0), (3, 3), (3, 5)]
    trainer = Trainer(plan, tmp_path, 48)
    trainer.load(tmp_path / "tiny-48.pt")
    assert trainer.rate_scale() == 1.0


def test_an_untrained_entropic_student_has_scaled_symbols_and_decodes_near_the_mean_features(config: dict, work: Path):
    baseline = {"kind": "entropic-student", "settings": [16], "channels": 4, "width": WIDTH, "activation": "relu", "warm_start": True}
    stage = {"steps": 1, "batch": 2, "lr": 1e-3, "lr_drops": []}
    trainer = Trainer(
        {"seed": 7, "backbone": config["backbone"], "name": "tiny", "baseline": baseline, "stage1": stage, "stage2": stage}, work, 16
    )
    pixels, features = trainer.first()
    sent = trainer.student.encoder(normalise(pixels))
    assert sent.std().item() == pytest.approx(INITIAL_STD, rel=1e-3)
    found, _ = trainer.student(pixels)
    centred = features - features.mean((0, 2, 3), keepdim=True)
    assert (found - features).square().mean() < 2 * centred.square().mean()


def test_a_config_that_moves_a_checkpoint_to_another_stage_is_refused(config: dict, work: Path, tmp_path: Path):
    baseline = {"kind": "bottlefit", "settings": [3], "width": WIDTH, "warm_start": False}
    stage = {"steps": 3, "batch": 2, "method": "kd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4, "lr_drops": []}
    plan = {"seed": 7, "backbone": config["backbone"], "name": "tiny", "baseline": baseline, "stage1": stage, "stage2": stage}
    trainer = Trainer(plan, work, 3)
    trainer.advance()
    trainer.save(tmp_path / "tiny-3.pt")
    with pytest.raises(SystemExit, match="step 1, in stage 1; the config now puts that step into stage 2"):
        Trainer(plan | {"stage1": stage | {"steps": 1}}, work, 3).load(tmp_path / "tiny-3.pt")
