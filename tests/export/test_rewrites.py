import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cisi_export.inference_graph import inference_module
from cisi_export.rewrites import (
    Float16Conv,
    InstanceNormNode,
    SubPixelConv,
    WrittenOutNorm,
    float16_convolutions,
    fold_output,
    fold_upsampling,
    half_resolution_weight,
    use_instance_norm_nodes,
    write_out_statistics,
)
from cisi_runtime.architecture import PRESETS
from cisi_train.checkpoint import load_checkpoint
from cisi_train.network import Generator
from cisi_train.network.layers import Normalise, UpsampleConv


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 16)])
def test_folded_upsampling_is_equal_in_float64(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(UpsampleConv(5, 7)).double()
    x = torch.randn(2, 5, *size, dtype=torch.float64)
    expected = network(x)
    fold_upsampling(network)
    assert isinstance(network[0], SubPixelConv)
    assert network(x).shape == (2, 7, 2 * size[0], 2 * size[1])
    # Measured 2e-15; the sums are only made in another order.
    assert (network(x) - expected).abs().max() < 1e-13


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 16)])
def test_folded_output_is_equal_in_float64(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4 * 5, *size, dtype=torch.float64)
    conv = nn.Conv2d(5, 3, 7, padding=3, dtype=torch.float64)
    expected = conv(F.pixel_shuffle(x, 2))
    assert conv.bias is not None
    folded = F.conv2d(x, half_resolution_weight(conv.weight), conv.bias.repeat_interleave(4), padding=2)
    found = F.pixel_shuffle(folded, 2)[:, :, 1:-1, 1:-1]
    assert found.shape == expected.shape
    # Measured 4e-16; the sums are only made in another order.
    assert (found - expected).abs().max() < 1e-13


def test_the_decoder_with_its_output_folded_is_equal_in_float64(tiny_checkpoint_path: Path) -> None:
    decoder = load_checkpoint(tiny_checkpoint_path).generator().decoder
    architecture = PRESETS["tiny"]
    content = torch.randn(2, architecture.content_channels, 5, 8, dtype=torch.float64)
    style = torch.randn(2, architecture.style_dim, dtype=torch.float64)
    # In float64 from the start: nothing is rounded to float32 on the way.
    folded = copy.deepcopy(decoder).double()
    expected = decoder.double()(content, style)
    fold_upsampling(folded)
    fold_output(folded)
    assert (folded(content, style) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("rewrite", [use_instance_norm_nodes, write_out_statistics])
def test_norms_are_equal_in_float64(rewrite: object) -> None:
    network = nn.Sequential(Normalise())
    x = torch.randn(2, 4, 8, 10, dtype=torch.float64) * 7 + 300
    expected = network(x)
    rewrite(network)  # type: ignore[operator]
    assert isinstance(network[0], InstanceNormNode | WrittenOutNorm)
    assert (network(x) - expected).abs().max() < 1e-11


def test_written_out_norm_survives_float16_values_whose_square_overflows() -> None:
    x = (torch.randn(1, 2, 16, 16, dtype=torch.float64) * 3 + 867).half()
    y = WrittenOutNorm()(x)
    assert y.dtype == torch.float32
    assert (y - Normalise()(x.double())).abs().max() < 1e-3


def test_every_convolution_is_halved_and_nothing_else(tiny_checkpoint_path: object) -> None:
    network = load_checkpoint(tiny_checkpoint_path).generator()  # type: ignore[arg-type]
    convolutions = sum(isinstance(module, nn.Conv2d) for module in network.modules())
    float16_convolutions(network)
    assert sum(isinstance(module, Float16Conv) for module in network.modules()) == convolutions
    halved = {name for name, parameter in network.named_parameters() if parameter.dtype == torch.float16}
    assert all(".conv" in name or "to_rgb" in name or "convs" in name for name in halved)
    assert not any("mlp" in name or "to_code" in name for name in halved)


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_the_whole_rewritten_network_is_equal_in_float64(tiny_checkpoint_path: object, target: str) -> None:
    generator: Generator = load_checkpoint(tiny_checkpoint_path).generator()  # type: ignore[arg-type]
    module = inference_module(generator, target=target, face="tensor", as_float16=False).double()
    reference = copy.deepcopy(generator).double()
    image = torch.rand(2, 3, 128, 160, dtype=torch.float64) * 2 - 1
    mask = torch.zeros(2, 1, 128, 160, dtype=torch.float64)
    mask[0, :, 30:90, 40:120] = 1.0
    mask[1, :, :, 100:] = 1.0
    with torch.no_grad():
        difference = (module(image, mask) - reference.inpaint(image, mask)).abs().max()
    # The folded weights are stored as float32; measured 2e-7.
    assert difference < 2e-6
