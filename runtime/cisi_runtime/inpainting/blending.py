"""A fill blended into the picture around its hole, without a visible seam."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.inpainting.blocks import any_in_blocks, averaged
from cisi_runtime.inpainting.known_means import known_means
from cisi_runtime.inpainting.pull_push import FloatArray, pull_push
from cisi_runtime.pictures.masks import hole_box

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# Holes at least twice as long are blended by averages of blocks. The correction is smooth, and at full resolution its
# floats would take many times the memory of the picture.
_MAX_SIDE = 1024


def blend_seam(fill: UInt8Array, picture: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
    """Shift a fill's colours so that it meets the picture at the edge of the hole.

    fill, picture: uint8 `[H, W, 3]`; what the picture holds under the hole has no influence.
    hole_mask: bool `[H, W]`, True = hole.
    Returns uint8 `[H, W, 3]`: outside the hole the fill as it was.

    Each of the hole's outermost pixels should equal the mean of its known neighbours. The difference, continued into
    the hole, is added to the fill: the membrane of Poisson blending (Perez, Gangnet and Blake, "Poisson Image Editing",
    2003, section 2). Measured on `open/val`, before smooth surfaces: 15.86 dB without it, 16.13 dB with it. Averages
    over more than the eight neighbours were worse (by up to 0.2 dB on 52 photographs, with earlier weights). Solving
    for the membrane exactly instead of by pull-push was 0.02 dB better.
    """
    if not hole_mask.any():
        return fill
    box = hole_box(hole_mask, 2)
    hole, result = hole_mask[box], fill.copy()
    factor = max(1, max(hole.shape) // _MAX_SIDE)
    small_fill, small_picture = averaged(fill[box], factor), averaged(picture[box], factor)
    correction = _membrane(small_fill, small_picture, any_in_blocks(hole, factor))
    for band in range(3):  # one by one: for a large hole each takes as much memory as the picture
        before, shift = fill[box][..., band], correction[..., band]
        if factor > 1:
            shift = np.asarray(Image.fromarray(shift).resize(hole.shape[::-1], Image.Resampling.BILINEAR))
        shifted = np.rint(np.clip(before + shift, 0.0, 255.0)).astype(np.uint8)
        result[box][..., band] = np.where(hole, shifted, before)
    return result


def _membrane(fill: UInt8Array, picture: UInt8Array, hole: BoolArray) -> FloatArray:
    """What is to be added to the fill `[H, W, 3]` inside the hole `[H, W]`."""
    inside = fill.astype(np.float32)
    # Of up to eight: the pixel itself is hole.
    expected, neighbours = known_means(picture.astype(np.float32), (~hole).astype(np.float32), 1)
    return pull_push(expected - inside, hole & (neighbours > 0), default=0.0)
