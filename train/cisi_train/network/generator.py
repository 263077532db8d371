"""CISI-net: the encoders and the decoder together, and what inpainting with them means."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cisi_runtime.architecture import Architecture
from cisi_train.network.decoder import Decoder
from cisi_train.network.encoders import InferredContentEncoder, SelfContentEncoder, StyleEncoder


def corrupt(image: Tensor, hole_mask: Tensor) -> Tensor:
    """What ICE and SE read: `[N, 4, H, W]`, the image with the hole at 0, then the mask.

    image `[N, 3, H, W]` in [-1, 1]; hole_mask `[N, 1, H, W]` in {0, 1}, 1 = hole. The result does not depend on what
    lies under the hole, not even on NaN there.
    """
    return torch.cat([image.masked_fill(hole_mask > 0.5, 0.0), hole_mask], dim=1)


def composite(image: Tensor, generated: Tensor, hole_mask: Tensor) -> Tensor:
    """Generated pixels in the hole, known pixels untouched. Shapes and ranges as in `corrupt`."""
    return torch.where(hole_mask > 0.5, generated, image)


class Generator(nn.Module):
    """SCE, ICE, SE and decoder, each a submodule, so that the trainer can call them one by one."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.self_content = SelfContentEncoder(architecture)
        self.inferred_content = InferredContentEncoder(architecture)
        self.style = StyleEncoder(architecture)
        self.decoder = Decoder(architecture)
        _initialise(self)

    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        """Image `[N, 3, H, W]` in [-1, 1] and mask `[N, 1, H, W]` (1 = hole) to the whole generated image, before
        the composite. H and W: multiples of 16, at least 64."""
        corrupted = corrupt(image, hole_mask)
        generated: Tensor = self.decoder(self.inferred_content(corrupted), self.style(corrupted))
        return generated

    def use_one_style(self) -> None:
        """Give every picture the style code 0, so that the decoder has one style for all of them.

        In the weights, not in a switch: checkpoints and exports of such a network are then right by themselves.
        """
        nn.init.zeros_(self.style.to_code.weight)
        nn.init.zeros_(self.style.to_code.bias)

    def inpaint(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        """`forward` and composite: what is deployed, and in float64 the reference of every parity check."""
        return composite(image, self(image, hole_mask), hole_mask)


def _initialise(module: nn.Module) -> None:
    """He initialisation, as every convolution feeds a ReLU or a norm; RGB starts small."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if name.endswith("to_rgb"):
                nn.init.normal_(layer.weight, std=0.02)
            else:
                nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None and not name.endswith("mlp.layers.4"):
                nn.init.zeros_(layer.bias)
