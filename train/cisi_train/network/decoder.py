"""The decoder: a content code rendered in a style."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cisi_runtime.architecture import Architecture
from cisi_train.network.layers import AdaptiveResidualBlock, UpsampleConv, promoted


class StyleMLP(nn.Module):
    """Style code `[N, style_dim]` to gamma and beta of every AdaIN layer, each `[N, adain_layers, 4*dim]`.

    The last layer's bias starts at gamma 1 and beta 0, so that styles vary an ordinary instance-norm decoder.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.shape = (2, architecture.adain_layers, architecture.content_channels)
        width = architecture.mlp_dim
        self.layers = nn.Sequential(
            nn.Linear(architecture.style_dim, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 2 * architecture.adain_layers * architecture.content_channels),
        )
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():
            last.bias.zero_()
            last.bias[: last.out_features // 2] = 1.0

    def forward(self, style: Tensor) -> tuple[Tensor, Tensor]:
        gamma, beta = self.layers(style).unflatten(1, self.shape).unbind(1)
        return gamma, beta


class Decoder(nn.Module):
    """Content `[N, 4*dim, H/4, W/4]` and style `[N, style_dim]` to an image `[N, 3, H, W]` in [-1, 1]."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        dim = architecture.dim
        self.mlp = StyleMLP(architecture)
        self.blocks = nn.ModuleList(
            AdaptiveResidualBlock(architecture.content_channels) for _ in range(architecture.decoder_blocks)
        )
        self.up = nn.ModuleList([UpsampleConv(4 * dim, 2 * dim), UpsampleConv(2 * dim, dim)])
        self.to_rgb = nn.Conv2d(dim, 3, 7, padding=3)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self.mlp(style)
        x = content
        for index, block in enumerate(self.blocks):
            first, second = 2 * index, 2 * index + 1
            x = block(x, (gamma[:, first], gamma[:, second]), (beta[:, first], beta[:, second]))
        for up in self.up:
            x = F.relu(up(x))
        return torch.tanh(promoted(self.to_rgb(x)))
