"""Pictures and masks reduced by blocks of pixels. Blocks at the right and bottom edges may be smaller."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def any_in_blocks(mask: BoolArray, size: int) -> BoolArray:
    """Whether each block of `size` x `size` pixels of a mask `[H, W]` holds a True: `[ceil(H/size), ceil(W/size)]`.

    A size of 1 gives the mask itself.
    """
    if size == 1:
        return mask
    height, width = mask.shape
    whole = height // size
    rows = np.zeros((-(-height // size), width), dtype=np.bool_)
    # Along the rows of whole blocks: twenty times as fast as `reduceat`.
    np.logical_or.reduce(mask[: whole * size].reshape(whole, size, width), axis=1, out=rows[:whole])
    if whole < len(rows):
        rows[whole] = mask[whole * size :].any(axis=0)
    blocks: BoolArray = np.logical_or.reduceat(rows, np.arange(0, width, size), axis=1)
    return blocks


def averaged(image: UInt8Array, size: int) -> UInt8Array:
    """Averages of blocks of a picture, `[ceil(H/size), ceil(W/size), 3]`. A size of 1 gives the picture itself."""
    if size == 1:
        return image
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(size))
