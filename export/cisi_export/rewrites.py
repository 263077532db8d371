"""Exact rewrites of the trained network into the one that is exported. Each replaces modules by equivalent ones.

They work in place, on a copy that the caller has made. The trained modules know nothing of ONNX: what a backend needs
is here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cisi_train.network.layers import EPS, Normalise, UpsampleConv, promoted, sub_pixel_weight

Replaced = TypeVar("Replaced", bound=nn.Module)


class SubPixelConv(nn.Module):
    """A 3x3 convolution to four times the channels, then depth to space: `[N, C, H, W]` to `[N, C_out, 2H, 2W]`."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class InstanceNormNode(nn.Module):
    """`Normalise` as one InstanceNormalization node, for which ONNX Runtime has a CPU kernel."""

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(promoted(x), eps=EPS)


class WrittenOutNorm(nn.Module):
    """`Normalise` with mean and variance written out, in two passes and float32, which TensorRT fuses."""

    def forward(self, x: Tensor) -> Tensor:
        x = promoted(x)
        centred = x - x.mean(dim=(2, 3), keepdim=True)
        variance = (centred * centred).mean(dim=(2, 3), keepdim=True)
        return centred * torch.rsqrt(variance + EPS)


class Float16Conv(nn.Module):
    """A convolution in float16. It takes any float type; the cast is an explicit node of the graph."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv.half()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.half())
        return y


def fold_upsampling(network: nn.Module) -> None:
    """Nearest x2 upsampling and 5x5 convolution become one 3x3 convolution at low resolution and depth to space.

    See `sub_pixel_weight`. Sums are computed in float64.
    """
    _replace(network, UpsampleConv, lambda up: SubPixelConv(_folded(up.conv)))


def use_instance_norm_nodes(network: nn.Module) -> None:
    """Normalisation in the `cpu` lowering."""
    _replace(network, Normalise, lambda _: InstanceNormNode())


def write_out_statistics(network: nn.Module) -> None:
    """Normalisation in the `tensorrt` lowering."""
    _replace(network, Normalise, lambda _: WrittenOutNorm())


def float16_convolutions(network: nn.Module) -> None:
    """Every convolution in float16; statistics, masked pooling, style path and tanh stay in float32."""
    _replace(network, nn.Conv2d, Float16Conv)


def _folded(conv: nn.Conv2d) -> nn.Conv2d:
    weight = sub_pixel_weight(conv.weight.detach().double())
    folded = nn.Conv2d(conv.in_channels, 4 * conv.out_channels, 3, padding=1, dtype=conv.weight.dtype)
    assert conv.bias is not None
    assert folded.bias is not None
    with torch.no_grad():
        folded.weight.copy_(weight)
        folded.bias.copy_(conv.bias.repeat_interleave(4))
    return folded


def _replace(parent: nn.Module, kind: type[Replaced], build: Callable[[Replaced], nn.Module]) -> None:
    for name, child in list(parent.named_children()):
        if isinstance(child, kind):
            setattr(parent, name, build(child))
        else:
            _replace(child, kind, build)
