"""A generator applied to pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from cisi_runtime.codec import decode_pixels, encode_pixels
from cisi_train.network import Generator


def inpaint_pixels(
    generator: Generator, image: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_], device: torch.device
) -> npt.NDArray[np.uint8]:
    """Complete one picture uint8 `[H, W, 3]` with a hole mask bool `[H, W]` (True = hole), on the generator's device.
    H and W: multiples of 16, at least 64."""
    mask = torch.from_numpy(hole_mask[None, None].astype(np.float32)).to(device)
    with torch.no_grad():
        completed = generator.inpaint(torch.from_numpy(decode_pixels(image)[None]).to(device), mask)
    return encode_pixels(completed[0].cpu().numpy())
