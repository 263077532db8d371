"""LPIPS (Zhang et al. 2018), version 0.1 on AlexNet: how different two pictures look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cisi_train.published import fetch, read_weights

# torchvision's AlexNet and the linear heads of the authors' package, each with how its SHA-256 begins.
ALEXNET = ("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth", "7be5be79")
HEADS = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/alex.pth",
    "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
)

# Convolutions of torchvision's `features`: number, channels in and out, kernel, stride, padding, and whether a max
# pooling (3, stride 2) precedes it.
_CONVS = (
    (0, 3, 64, 11, 4, 2, False),
    (3, 64, 192, 5, 1, 2, True),
    (6, 192, 384, 3, 1, 1, True),
    (8, 384, 256, 3, 1, 1, False),
    (10, 256, 256, 3, 1, 1, False),
)
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_EPS = 1e-10


class Lpips(nn.Module):
    """Two batches `[N, 3, H, W]` in [-1, 1] (H, W at least 64) to distances `[N]`, 0 for equal pictures."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict()
        self.heads = nn.ParameterList()
        for number, channels_in, channels_out, kernel, stride, padding, _ in _CONVS:
            self.convs[str(number)] = nn.Conv2d(channels_in, channels_out, kernel, stride, padding)
            self.heads.append(torch.zeros(1, channels_out, 1, 1))
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None])
        self.requires_grad_(False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """See the class."""
        distance = torch.zeros(len(a))
        for map_a, map_b, head in zip(self._directions(a), self._directions(b), self.heads, strict=True):
            distance = distance + ((map_a - map_b).square() * head).sum(dim=1).mean(dim=(1, 2))
        return distance

    def _directions(self, image: Tensor) -> list[Tensor]:
        """Features of each layer, scaled to length 1 over the channels."""
        x = (image - self.shift) / self.scale
        maps: list[Tensor] = []
        for number, *_, pooled in _CONVS:
            if pooled:
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(self.convs[str(number)](x))
            maps.append(x / (x.square().sum(dim=1, keepdim=True).sqrt() + _EPS))
        return maps

    def of_pixels(self, a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
        """Distance of two pictures uint8 `[H, W, 3]`."""
        pair = torch.from_numpy(np.stack([a, b])).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        distance: Tensor = self(pair[:1], pair[1:])
        return distance.item()


def load_lpips(path: Path | None) -> Lpips:
    """The metric with its published weights: from a `.npz` with `features.N.weight`, `features.N.bias` (torchvision's
    AlexNet) and `lpips_lin_alex.K`, or (None) from their own addresses. Raises WeightsError."""
    metric = Lpips()
    convs: dict[str, tuple[int, ...]] = {}
    heads: dict[str, tuple[int, ...]] = {}
    for number, channels_in, channels_out, kernel, *_ in _CONVS:
        convs[f"features.{number}.weight"] = (channels_out, channels_in, kernel, kernel)
        convs[f"features.{number}.bias"] = (channels_out,)
    for layer, (_, _, channels_out, *_) in enumerate(_CONVS):
        heads[f"lpips_lin_alex.{layer}" if path is not None else f"lin{layer}.model.1.weight"] = (1, channels_out, 1, 1)
    if path is not None:
        weights = read_weights(path, convs | heads)
    else:
        alexnet, published_heads = (fetch(*source, instead="--lpips FILE") for source in (ALEXNET, HEADS))
        weights = read_weights(alexnet, convs) | read_weights(published_heads, heads)
    with torch.no_grad():
        for name, conv in metric.convs.items():
            conv.load_state_dict({key: weights[f"features.{name}.{key}"] for key in ("weight", "bias")})
        for head, name in zip(metric.heads, heads, strict=True):
            head.copy_(weights[name])
    return metric.eval()
