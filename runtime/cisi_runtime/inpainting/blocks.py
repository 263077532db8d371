"""Pictures and masks reduced by blocks of pixels. Blocks at the right and bottom edges may be smaller."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def any_in_blocks(mask: BoolArray, size: int) -> BoolArray:
    """Whether each block of `size` x `size` pixels of a mask `[H, W]` holds a True: `[ceil(H/size), ceil(W/size)]`."""
    height, width = mask.shape
    rows = np.logical_or.reduceat(mask, np.arange(0, height, size), axis=0)
    blocks: BoolArray = np.logical_or.reduceat(rows, np.arange(0, width, size), axis=1)
    return blocks


def reduced(image: UInt8Array, hole_mask: BoolArray, factor: int) -> tuple[UInt8Array, BoolArray]:
    """Averages of blocks of a picture, `[ceil(H/factor), ceil(W/factor), 3]`, and which blocks hold any of the hole."""
    if factor <= 1:
        return image, hole_mask
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(factor)), any_in_blocks(hole_mask, factor)
