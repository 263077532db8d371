"""The fixed VGG-16 of the perceptual loss, and hole masks in its feature space."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cisi_train.published import fetch, kept_at, read_weights

# torchvision's published ImageNet weights; the file's name carries the beginning of its hash. 553,433,881 bytes.
URL, SHA256_START = "https://download.pytorch.org/models/vgg16-397923af.pth", "397923af"
_SIZE = "553 MB"

# Numbers of the convolutions in torchvision's `features`; a 2x2 max pooling follows each row: pool1, pool2, pool3.
_STAGES = ((0, 2), (5, 7), (10, 12, 14))
_WIDTHS = (64, 128, 256)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Of the mask after its way through the network: above, a feature counts as hole (the paper says "a threshold").
_HOLE_THRESHOLD = 0.5


class VggFeatures(nn.Module):
    """ImageNet VGG-16 (Simonyan and Zisserman 2015) up to pool3, frozen.

    `[N, 3, H, W]` in [-1, 1] to the maps after pool1, pool2 and pool3: `[N, 64, H/2, W/2]`, `[N, 128, H/4, W/4]`,
    `[N, 256, H/8, W/8]`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        channels = 3
        self.features = nn.ModuleDict()
        for stage, width in zip(_STAGES, _WIDTHS, strict=True):
            for number in stage:
                self.features[str(number)] = nn.Conv2d(channels, width, 3, padding=1)
                channels = width
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See the class."""
        x = ((image + 1.0) / 2.0 - self.mean) / self.std
        maps: list[Tensor] = []
        for stage in _STAGES:
            for number in stage:
                x = F.relu(self.features[str(number)](x))
            x = F.max_pool2d(x, 2)
            maps.append(x)
        return maps


def load_vgg(path: Path | None) -> VggFeatures:
    """The network with published weights: from a `.npz` or PyTorch file, or (None) from torchvision's own address.

    Raises WeightsError.
    """
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in VggFeatures().state_dict().items()}
    if path is None:
        path = fetch(URL, SHA256_START, instead="--vgg FILE with these weights, or --no-perceptual to train without")
    weights = read_weights(path, shapes)
    vgg = VggFeatures()
    vgg.load_state_dict(weights)
    return vgg.eval()


def fetch_notice() -> str | None:
    """What `load_vgg(None)` is going to fetch, for people; None when it has been fetched."""
    path = kept_at(URL)
    if path.is_file():
        return None
    return (
        f"the perceptual loss needs ImageNet VGG-16: fetching {URL} ({_SIZE}) once, to {path}; --vgg FILE takes a file "
        "instead, --no-perceptual trains without"
    )


def feature_masks(hole_mask: Tensor) -> list[Tensor]:
    """Which features of pool1, pool2 and pool3 count as hole: each `[N, 1, h, w]` in {0, 1}.

    The mask `[N, 1, H, W]` (1 = hole) goes through a network of VGG's shape with every weight 1/9, and what comes out
    above 0.5 counts (paper, section "Implementation Details").
    """
    box = torch.full((1, 1, 3, 3), 1.0 / 9.0, dtype=hole_mask.dtype, device=hole_mask.device)
    masks: list[Tensor] = []
    seen = hole_mask
    for stage in _STAGES:
        for _ in stage:
            seen = F.conv2d(seen, box, padding=1)
        seen = F.max_pool2d(seen, 2)
        masks.append((seen > _HOLE_THRESHOLD).to(hole_mask.dtype))
    return masks
