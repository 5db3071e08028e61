"""Custom backbones of several families become bundles, which the exporter checks against PyTorch."""

import hashlib
import json
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from recipe import custom_backbone
from recipe.custom import split_points
from recipe.custom_backbone import Options
from recipe.head import chain

HEAD = Path(__file__).parents[3] / "target" / "release" / "narrows-head"  # opens every bundle, if it was built

FAMILIES = {
    "resnet": ("torchvision:resnet18", 64),
    "mobilenet": ("torchvision:mobilenet_v3_small", 64),
    "regnet": ("torchvision:regnet_y_400mf", 64),
    "convnext": ("timm:convnext_atto", 64),
    "vit": ("timm:vit_tiny_patch16_224", None),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for index in range(12):
        (folder / "ab"[index % 2]).mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        small.resize((80, 72), Image.BICUBIC).save(folder / "ab"[index % 2] / f"{index}.png")
    return folder


def options(backbone: str, side: int | None, data: Path, work: Path) -> Options:
    return Options(backbone, data, work, work / "bundle", split="auto", side=side, crops=1, steps=3, width=8)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_becomes_a_bundle(family: str, photos: Path, tmp_path: Path):
    backbone, side = FAMILIES[family]
    pytest.importorskip(backbone.split(":")[0])
    custom_backbone.run(options(backbone, side, photos, tmp_path))
    check_folder(tmp_path / "bundle", backbone)


def test_an_onnx_file_becomes_a_bundle(photos: Path, tmp_path: Path):
    pytest.importorskip("onnx2torch")
    file, rng, nodes, stored = tmp_path / "small.onnx", np.random.default_rng(4), [], []
    for index, (cin, cout, stride) in enumerate([(3, 8, 2), (8, 8, 2), (8, 12, 2), (12, 16, 2), (16, 16, 1)]):
        weight = rng.normal(0, (9 * cin) ** -0.5, (cout, cin, 3, 3)).astype(np.float32)
        stored.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(
            helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"y{index}"], kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4)
        )
        nodes.append(helper.make_node("Relu", [f"y{index}"], [f"x{index + 1}"]))
    stored += [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name) for name, shape in (("w", (5, 16)), ("b", (5,)))]
    nodes += [helper.make_node("GlobalAveragePool", ["x5"], ["p"]), helper.make_node("Flatten", ["p"], ["f"])]
    nodes.append(helper.make_node("Gemm", ["f", "w", "b"], ["logits"], transB=1))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x0", ["n", 3, 64, 64]), ("logits", ["n", 5]))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(file))
    custom_backbone.run(options(f"onnx:{file}", 64, photos, tmp_path))
    check_folder(tmp_path / "bundle", f"onnx:{file}")


def check_folder(bundle: Path, backbone: str) -> None:
    """The folder agrees with its manifest, and the runtime accepts it; the networks were checked by the export."""
    manifest = tomllib.loads((bundle / "manifest.toml").read_text())
    assert manifest["backbone"] == backbone
    files = {f.relative_to(bundle).as_posix() for f in bundle.rglob("*") if f.is_file()} - {"manifest.toml"}
    assert files == set(manifest["digests"])
    for name, digest in manifest["digests"].items():
        assert hashlib.sha256((bundle / name).read_bytes()).hexdigest() == digest, name
    if HEAD.is_file():
        output = subprocess.run([HEAD, "doctor", "--json", "--bundle", bundle], check=False, capture_output=True, text=True)
        states = {check["what"]: check["state"] for check in json.loads(output.stdout)["checks"]}
        assert states["bundle"] == states["vectors"] == "ok", output.stdout


class Parallel(torch.nn.Module):
    """A network with a residual connection around its middle layer."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.Conv2d(4, 4, 3, 1, 1), torch.nn.Conv2d(4, 5, 3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(self.inner(x) + x).mean((2, 3))


def test_there_is_no_split_point_inside_a_residual_connection():
    program = split_points.trace(Parallel().eval().requires_grad_(False), 16)
    found, total = split_points.find(program.module(check_guards=False), 16)
    assert [point.name for point in found] == ["first", "last"]
    assert total == 27 * 4 * 64 + 36 * 4 * 64 + 36 * 5 * 16
    assert found[0].macs == 27 * 4 * 64


def test_a_layer_that_the_integer_head_cannot_compute_is_refused_by_name():
    first = {"channels": 16, "kernel": 5, "stride": 2}
    last = {"channels": 8, "kernel": 1, "activation": "none"}
    assert len(chain([first, {"channels": 16, "kernel": 5, "stride": 2}, last], 8, 4)) == 3
    for bad, said in (
        ([first | {"activation": "gdn"}, last], r"layers\[0\] \(conv 5x5/2 gdn\)"),
        ([first, {"channels": 16, "kernel": 2}, last], r"layers\[1\] \(conv 2x2/1 relu\)"),
        ([first, {"channels": 32, "kernel": 3, "depthwise": True}, last], r"layers\[1\] \(depthwise 3x3/1 relu\)"),
        ([first | {"dilation": 2}, last], "dilation"),
        ([first, last], "stride 2"),
    ):
        with pytest.raises(SystemExit, match=said):
            chain(bad, 8, 4)
