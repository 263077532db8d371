"""The colours of a folder of photographs: what four numbers of the style code are scaled by."""

from __future__ import annotations

import dataclasses
from typing import Self

import torch
from torch import Tensor

from cisi_train.data import TrainingSamples, decode_batch

# Training crops that are looked at. From 160 to 1,000 the figures of open/train move by less than a twentieth.
_CROPS = 160
# A folder of pictures of one colour has no spread to scale by.
_SMALLEST_STD = 1e-2


@dataclasses.dataclass(frozen=True)
class ColourStatistics:
    """Mean and standard deviation of each measure of `colour_of` over training crops."""

    mean: tuple[float, float, float, float]
    std: tuple[float, float, float, float]

    @classmethod
    def of_samples(cls, samples: TrainingSamples) -> Self:
        """Over the first training samples, with the colours that training will see."""
        crops, holes = zip(*(samples[number] for number in range(_CROPS)), strict=True)
        image, _ = decode_batch(torch.stack(crops), torch.stack(holes), torch.device("cpu"))
        colours = colour_of(image)
        std = colours.std(dim=0, correction=0).clamp(min=_SMALLEST_STD)
        return cls(tuple(colours.mean(dim=0).tolist()), tuple(std.tolist()))

    def scaled(self, image: Tensor) -> Tensor:
        """`colour_of` the images, each measure scaled to mean 0 and standard deviation 1; `[N, 4]`."""
        colours = colour_of(image)
        return (colours - colours.new_tensor(self.mean)) / colours.new_tensor(self.std)


def colour_of(image: Tensor) -> Tensor:
    """Brightness, red minus blue, green minus the mean of both, contrast, of images `[N, 3, H, W]` in [-1, 1]; float32
    `[N, 4]`."""
    pixels = image.float()
    red, green, blue = pixels.mean(dim=(2, 3)).unbind(dim=1)
    contrast = pixels.mean(dim=1).std(dim=(1, 2), correction=0)
    return torch.stack([(red + green + blue) / 3, red - blue, green - (red + blue) / 2, contrast], dim=1)
