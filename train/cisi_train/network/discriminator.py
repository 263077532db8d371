"""Multi-scale patch discriminator (Wang et al. 2018) whose loss counts only patches that overlap the hole."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cisi_runtime.architecture import Architecture

_LAYERS = 4


class PatchDiscriminator(nn.Module):
    """One scale: `[N, 3, H, W]` in [-1, 1] to realness `[N, 1, H/16, W/16]`, unbounded (LSGAN)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        widths = [3, *(dim * 2**i for i in range(_LAYERS))]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        realness: Tensor = self.layers(image)
        return realness


class Discriminator(nn.Module):
    """The same network, with weights of its own, at each scale of the image."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(architecture.dim) for _ in range(architecture.discriminator_scales)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Realness of the patches at each scale, finest first: map k is `[N, 1, H/2^(4+k), W/2^(4+k)]`."""
        outputs: list[Tensor] = []
        for scale in self.scales:
            outputs.append(scale(image))
            image = _half_size(image)
        return outputs

    def hole_patches(self, hole_mask: Tensor) -> list[Tensor]:
        """For each scale the patches that overlap the hole, as booleans in the shape of `forward`'s maps.

        The mask `[N, 1, H, W]` goes through box filters of the discriminator's own shape, stride and padding. What
        comes out above 0 has seen the hole (paper, section "Implementation Details").
        """
        outputs: list[Tensor] = []
        box = torch.full((1, 1, 4, 4), 1.0 / 16.0, dtype=hole_mask.dtype, device=hole_mask.device)
        for _ in self.scales:
            seen = hole_mask
            for _ in range(_LAYERS):
                # Back to {0, 1} each time, so that small holes do not fade away.
                seen = (F.conv2d(seen, box, stride=2, padding=1) > 0).to(hole_mask.dtype)
            outputs.append(seen > 0)
            hole_mask = (_half_size(hole_mask) > 0).to(hole_mask.dtype)
        return outputs


def _half_size(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
