"""Photographs at the sizes that training, calibration and evaluation use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.pictures.reading import read_picture

UInt8Array = npt.NDArray[np.uint8]

# Of the longer to the shorter side, for `within_ratio`: a line of a few pixels, enlarged whole, would take gigabytes.
MAX_RATIO = 16


def resize_short_side(rgb: UInt8Array, short_side: int) -> UInt8Array:
    """Resize `[H, W, 3]` so that the shorter side has `short_side` pixels, with the contract's filter (Lanczos)."""
    height, width = rgb.shape[:2]
    scale = short_side / min(height, width)
    if scale == 1.0:
        return rgb
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def within_ratio(rgb: UInt8Array, at: float = 0.5) -> UInt8Array:
    """`[H, W, 3]`, cut to `MAX_RATIO` times its shorter side where it is longer. at: which piece, from 0 for the first
    to 1 for the last."""
    longest = MAX_RATIO * min(rgb.shape[:2])
    top, left = (round(at * max(0, side - longest)) for side in rgb.shape[:2])
    return rgb[top : top + longest, left : left + longest]


def crop_centre(rgb: UInt8Array, size: int) -> UInt8Array:
    """The central `size` x `size` pixels."""
    top, left = (rgb.shape[0] - size) // 2, (rgb.shape[1] - size) // 2
    return rgb[top : top + size, left : left + size]


def read_square(path: Path, size: int) -> UInt8Array:
    """A photograph resized to short side `size` and cropped to its central square: `[size, size, 3]`.

    Raises PictureError, as `read_picture`.
    """
    return crop_centre(resize_short_side(within_ratio(read_picture(path).rgb), size), size)
