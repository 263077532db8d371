"""Exact rewrites of the trained network into the one that is exported. Each replaces modules by equivalent ones.

They work in place, on a copy that the caller has made. The trained modules know nothing of ONNX: what a backend needs
is here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cisi_train.network.decoder import Decoder
from cisi_train.network.layers import EPS, Normalise, UpsampleConv, promoted, sub_pixel_weight

Replaced = TypeVar("Replaced", bound=nn.Module)


class SubPixelConv(nn.Module):
    """A 3x3 convolution to four times the channels, then depth to space: `[N, C, H, W]` to `[N, C_out, 2H, 2W]`."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class SubPixelOutput(nn.Module):
    """A 4x4 convolution at half resolution, depth to space, and one pixel cut off on each side.

    `[N, 4*C, H, W]`, channels as before a depth to space, to `[N, C_out, 2H, 2W]`.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(x), 2)[:, :, 1:-1, 1:-1]


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


def fold_output(decoder: Decoder) -> None:
    """The 7x7 convolution to RGB reads the last upsampling before its depth to space: three channels of output would
    leave most lanes of a vector unit empty, twelve at half the resolution fill them.

    Needs `fold_upsampling`. See `half_resolution_weight`.
    """
    last = decoder.up[-1]
    assert isinstance(last, SubPixelConv)
    # The convolution without its depth to space, under the name that it had.
    decoder.up[-1] = nn.Sequential(OrderedDict(conv=last.conv))
    decoder.to_rgb = SubPixelOutput(_at_half_resolution(decoder.to_rgb))  # type: ignore[assignment]


def half_resolution_weight(weight: Tensor) -> Tensor:
    """A 7x7 convolution behind a pixel shuffle, as a 4x4 convolution (padding 2) in front of one.

    weight `[O, C, 7, 7]` to `[4*O, 4*C, 4, 4]`. Output phase a of low-resolution pixel i is pixel 2i - 1 + a, so that
    the seven taps of both phases fall on the same four neighbours i - 2 to i + 1: tap k reads phase (a + k) % 2 of
    neighbour (a + k) // 2. Pixels -1 and 2H are surplus.
    """
    for dim in (2, 3):
        # Phase 0 has a gap behind its seven taps, phase 1 one before them; pairs of taps are phases of a neighbour.
        taps = torch.stack([_padded(weight, dim, 0, 1), _padded(weight, dim, 1, 0)], 1)
        weight = torch.unflatten(taps, dim + 1, (4, 2)).movedim(dim + 2, 3).flatten(2, 3).flatten(0, 1)
    return weight


def use_instance_norm_nodes(network: nn.Module) -> None:
    """Normalisation in the `cpu` lowering."""
    _replace(network, Normalise, lambda _: InstanceNormNode())


def write_out_statistics(network: nn.Module) -> None:
    """Normalisation in the `tensorrt` lowering."""
    _replace(network, Normalise, lambda _: WrittenOutNorm())


def float16_convolutions(network: nn.Module) -> None:
    """Every convolution in float16; statistics, masked pooling, style path and tanh stay in float32."""
    _replace(network, nn.Conv2d, Float16Conv)


def _at_half_resolution(conv: nn.Conv2d) -> nn.Conv2d:
    assert conv.bias is not None
    weight = half_resolution_weight(conv.weight.detach())
    halved = nn.Conv2d(4 * conv.in_channels, 4 * conv.out_channels, 4, padding=2, dtype=conv.weight.dtype)
    assert halved.bias is not None
    with torch.no_grad():
        halved.weight.copy_(weight)
        halved.bias.copy_(conv.bias.repeat_interleave(4))
    return halved


def _padded(weight: Tensor, dim: int, before: int, after: int) -> Tensor:
    return F.pad(weight, (before, after) if dim == 3 else (0, 0, before, after))


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
