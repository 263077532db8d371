"""The exported computation: ICE, style encoder and decoder with composite and codec, rewritten for one target."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cisi_export.rewrites import (
    float16_convolutions,
    fold_output,
    fold_upsampling,
    use_instance_norm_nodes,
    write_out_statistics,
)
from cisi_runtime.contract import MASK_THRESHOLD
from cisi_train.network import Generator, composite


class TensorFace(nn.Module):
    """image float `[N, 3, H, W]` in [-1, 1], hole_mask float `[N, 1, H, W]` in {0, 1} to completed, as image."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        return self.generator.inpaint(image, hole_mask)


class Uint8Face(nn.Module):
    """image uint8 `[N, H, W, 3]` RGB, hole_mask uint8 `[N, H, W]` (128 and above = hole) to completed, as image.

    TensorRT takes uint8 only through a cast that is the first or the last node, and does not transpose it. So
    everything between is float. Whole levels from 0 to 255 are exact in float, so known pixels come out as they went
    in.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor, hole_mask: Tensor) -> Tensor:
        known_levels = image.float().permute(0, 3, 1, 2)
        hole = (hole_mask.float() >= MASK_THRESHOLD).float()[:, None]
        generated = self.generator(known_levels / 127.5 - 1.0, hole)
        # torch.round and ONNX Round both round half to even, as the contract says.
        generated_levels = ((generated + 1.0) * 127.5).clamp(0.0, 255.0).round()
        return composite(known_levels, generated_levels, hole).permute(0, 2, 3, 1).to(torch.uint8)


def inference_module(generator: Generator, *, target: str, face: str, as_float16: bool) -> nn.Module:
    """A rewritten copy of the generator behind a face ("tensor" or "uint8"), in evaluation mode.

    target: "cpu" for InstanceNormalization nodes and the output folded, "tensorrt" for statistics written out. There
        the fold would save a float16 engine one of 83 kernels, and an INT8 engine none.
    as_float16: convolutions in float16.
    """
    network = copy.deepcopy(generator).float().eval()
    del network.self_content  # training only
    fold_upsampling(network)
    if target == "cpu":
        fold_output(network.decoder)
        use_instance_norm_nodes(network)
    else:
        write_out_statistics(network)
    if as_float16:
        float16_convolutions(network)
    module = Uint8Face(network) if face == "uint8" else TensorFace(network)
    return module.eval().requires_grad_(False)
