"""Pictures and masks seen in blocks of pixels (those at the right and below may be smaller), and the box of a hole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def any_in_blocks(mask: BoolArray, size: int) -> BoolArray:
    """Whether a block of `size` x `size` pixels of a mask `[H, W]` has any True: `[ceil(H/size), ceil(W/size)]`."""
    height, width = mask.shape
    rows = np.logical_or.reduceat(mask, np.arange(0, height, size), axis=0)
    found: BoolArray = np.logical_or.reduceat(rows, np.arange(0, width, size), axis=1)
    return found


def reduced(image: UInt8Array, hole_mask: BoolArray, factor: int) -> tuple[UInt8Array, BoolArray]:
    """Averages `[ceil(H/factor), ceil(W/factor), 3]` of blocks of a picture, and which of them have any of the hole."""
    if factor <= 1:
        return image, hole_mask
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).reduce(factor)), any_in_blocks(hole_mask, factor)


def surroundings(hole_mask: BoolArray, margin: int) -> tuple[slice, slice]:
    """Rows and columns of the hole `[H, W]`, of which there is at least one pixel, with so many more on each side."""
    rows, columns = (np.flatnonzero(hole_mask.any(axis=axis)) for axis in (1, 0))
    return tuple(slice(max(0, int(line[0]) - margin), int(line[-1]) + 1 + margin) for line in (rows, columns))  # type: ignore[return-value]
