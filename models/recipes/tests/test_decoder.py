"""Self-attention in the decoder: its ONNX graph agrees with PyTorch, on odd sizes too."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from recipe import backbone, graph
from recipe.bundle_parts import round_to_f16
from recipe.decoder import Attention, Decoder


@pytest.mark.parametrize("height, width", [(8, 8), (9, 7)])
def test_the_onnx_graph_with_attention_agrees_with_pytorch(tmp_path: Path, height: int, width: int):
    torch.manual_seed(3)
    decoder = Decoder(latent=8, features=48, width=16, blocks_before=1, blocks_after=1, global_context=True, attention_heads=4)
    for weight in decoder.parameters():
        weight.data.add_(0.05 * torch.randn_like(weight))
    decoder, net = round_to_f16(decoder), round_to_f16(backbone.load())
    graph.tail(tmp_path / "tail.onnx", decoder, net, lambda g, x: graph.classify(g, net, x), ("logits", ["n", 1000]))
    latent, step = torch.randn(2, 8, height, width), torch.tensor([1.0, 3.0])
    found = onnxruntime.InferenceSession(str(tmp_path / "tail.onnx")).run(None, {"latent": latent.numpy(), "step": step.numpy()})[0]
    with torch.inference_mode():
        wanted = net.back(decoder(latent, step, net)[0]).logits
        decoder.attention.out.weight.zero_()
        without = net.back(decoder(latent, step, net)[0]).logits
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert (wanted - without).abs().max() > 1e-2


def test_untrained_attention_is_the_identity_and_trained_attention_spans_the_map():
    torch.manual_seed(3)
    layer, x = Attention(16, 4), torch.randn(1, 16, 6, 6)
    assert torch.equal(layer(x), x)
    torch.nn.init.normal_(layer.out.weight)
    far = x.clone()
    far[..., -1, -1] += 5
    assert not torch.equal(layer(far)[..., 0, 0], layer(x)[..., 0, 0])


def test_attention_heads_must_divide_the_width():
    with pytest.raises(SystemExit, match="decoder.attention_heads is 3: decoder.width, 16"):
        Decoder(latent=8, features=48, width=16, blocks_before=1, blocks_after=1, attention_heads=3)
