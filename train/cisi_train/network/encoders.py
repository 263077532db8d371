"""The two content encoders and the style encoder (paper, section "Framework")."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cisi_runtime.architecture import SIZE_MULTIPLE, Architecture
from cisi_train.network.layers import ConvBlock, Normalise, ResidualBlock, promoted


def _downsampling(channels_in: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBlock(channels_in, dim, 7), ConvBlock(dim, 2 * dim, 4, 2), ConvBlock(2 * dim, 4 * dim, 4, 2)
    )


class SelfContentEncoder(nn.Module):
    """SCE: complete image `[N, 3, H, W]` in [-1, 1] to its content code `[N, 4*dim, H/4, W/4]`. Training only."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.down = _downsampling(3, architecture.dim)
        self.blocks = nn.Sequential(*(ResidualBlock(architecture.content_channels) for _ in architecture.dilations))

    def forward(self, image: Tensor) -> Tensor:
        content: Tensor = self.blocks(self.down(image))
        return content


class InferenceBlock(nn.Module):
    """The extra block at the end of ICE: 3x3 convolution, and instance norm with a learned scale and offset.

    No ReLU: the code that it must equal is a sum and has both signs. Scale and offset are there because the channels of
    that code do not have unit variance.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = Normalise()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        scaled: Tensor = self.norm(x) * self.scale + self.offset
        return scaled.to(x.dtype)


class InferredContentEncoder(nn.Module):
    """ICE: corrupted image to the content code of the whole scene, hole included.

    In: `[N, 4, H, W]`, the image in [-1, 1] with 0 in the hole, then the hole mask (1 = hole).
    Out: `[N, 4*dim, H/4, W/4]`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.content_channels
        self.down = _downsampling(4, architecture.dim)
        self.blocks = nn.Sequential(*(ResidualBlock(channels, dilation) for dilation in architecture.dilations))
        self.infer = InferenceBlock(channels)

    def forward(self, corrupted: Tensor) -> Tensor:
        content: Tensor = self.infer(self.blocks(self.down(corrupted)))
        return content


def known_region_mean(features: Tensor, hole_mask: Tensor) -> Tensor:
    """Mean of feature maps over the known region, in float32 at least.

    features `[N, C, H/16, W/16]`; hole_mask `[N, 1, H, W]` in {0, 1}, 1 = hole; returns `[N, C]`. The weight of a cell
    is the fraction of it that is known. Where nothing is known, every cell has weight 1, so that neither the value nor
    its gradient is ever NaN.
    """
    weight = F.avg_pool2d(1.0 - promoted(hole_mask), SIZE_MULTIPLE)
    nothing_known = (weight.sum(dim=(2, 3), keepdim=True) <= 0.0).to(weight.dtype)
    weight = weight + nothing_known
    return (promoted(features) * weight).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))


class StyleEncoder(nn.Module):
    """SE: image and mask to the style code `[N, style_dim]`, read from the known region only.

    In: `[N, 4, H, W]` as for ICE; a complete image has an all-zero mask. No instance norm anywhere: mean and variance
    of the features are the style (paper, section "Framework").
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        dim = architecture.dim
        widths = (2 * dim, 4 * dim, 4 * dim, 4 * dim)
        convs = [nn.Conv2d(4, dim, 7, padding=3)]
        for width in widths:
            convs.append(nn.Conv2d(convs[-1].out_channels, width, 4, 2, 1))
        self.convs = nn.ModuleList(convs)
        self.to_code = nn.Linear(widths[-1], architecture.style_dim)

    def forward(self, corrupted: Tensor) -> Tensor:
        x = corrupted
        for conv in self.convs:
            x = F.relu(conv(x))
        code: Tensor = self.to_code(known_region_mean(x, corrupted[:, 3:4]))
        return code
