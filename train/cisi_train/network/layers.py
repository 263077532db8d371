"""Building blocks that the encoders and the decoder share. Zero padding throughout (it fuses into the convolution on
every backend)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


def promoted(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others unchanged: for what must never be computed in half precision."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class Normalise(nn.Module):
    """Each channel of each picture to mean 0 and variance 1 over its map (Ulyanov et al. 2017, without affine part).

    `[N, C, H, W]` to the same shape, in float32 at least: the caller rounds once, after the affine part. Computed as a
    group norm with one channel per group. That is the same formula, and 2-3 times as fast as `instance_norm` in PyTorch
    2.13 on a CPU, forward and backward together.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(promoted(x), x.shape[1], eps=EPS)


class ConvBlock(nn.Module):
    """Convolution, instance norm, ReLU. The convolution has no bias: the norm would remove it."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, (kernel - 1) // 2, bias=False)
        self.norm = Normalise()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        normalised: Tensor = self.norm(x)
        return F.relu(normalised.to(x.dtype))


class ResidualBlock(nn.Module):
    """x + norm(conv(ReLU(norm(conv(x))))), both convolutions 3x3 with the given dilation; no activation after."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm1 = Normalise()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.norm2 = Normalise()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        y = self.conv2(F.relu(self.norm1(y).to(y.dtype)))
        residual: Tensor = self.norm2(y)
        return x + residual.to(y.dtype)


class AdaptiveNorm(nn.Module):
    """AdaIN, equation (10): `gamma * normalise(x) + beta` for each channel of each picture.

    x `[N, C, H, W]`, gamma and beta `[N, C]`. They are arguments, not attributes, so that batches cannot mix them up.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = Normalise()

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        scaled: Tensor = self.norm(x) * gamma[:, :, None, None] + beta[:, :, None, None]
        return scaled.to(x.dtype)


class AdaptiveResidualBlock(nn.Module):
    """A residual block whose two norms are AdaIN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = AdaptiveNorm()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = AdaptiveNorm()

    def forward(self, x: Tensor, gammas: tuple[Tensor, Tensor], betas: tuple[Tensor, Tensor]) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x), gammas[0], betas[0]))
        residual: Tensor = self.norm2(self.conv2(y), gammas[1], betas[1])
        return x + residual


def sub_pixel_weight(weight: Tensor) -> Tensor:
    """A 5x5 convolution behind nearest upsampling by two, as a 3x3 convolution in front of a pixel shuffle.

    weight `[O, C, 5, 5]` to `[4*O, C, 3, 3]`. Along each axis the five taps of output pixel (2i + a, 2j + b) fall on
    only three low-resolution neighbours. Taps on the same neighbour are added up. Zero padding stays exact.
    """
    for dim in (2, 3):
        taps = weight.unbind(dim)
        even = torch.stack([taps[0] + taps[1], taps[2] + taps[3], taps[4]], dim)
        odd = torch.stack([taps[0], taps[1] + taps[2], taps[3] + taps[4]], dim)
        weight = torch.stack([even, odd], 1).flatten(0, 1)
    return weight


class UpsampleConv(nn.Module):
    """Nearest upsampling by two, then a 5x5 convolution: `[N, C, H, W]` to `[N, C_out, 2H, 2W]`.

    No norm follows: it would erase the style that AdaIN has just written. In training mode this is computed by
    `sub_pixel_weight`, with a third of the multiplications. In evaluation mode it is computed as defined, because
    exports are compared with that.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
            return y
        assert self.conv.bias is not None
        bias = self.conv.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(x, sub_pixel_weight(self.conv.weight), bias, padding=1), 2)
