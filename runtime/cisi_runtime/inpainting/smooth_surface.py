"""The smooth surface of a sky, a wall or water, continued into a hole.

A network that is trained on scenes makes up colours where there is nothing to see. There the surface is better: a
quadratic one, and what it leaves continued as a membrane (see `pull_push`).
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from cisi_runtime.inpainting.blocks import any_in_blocks, averaged
from cisi_runtime.inpainting.known_means import known_means
from cisi_runtime.inpainting.pull_push import pull_push
from cisi_runtime.inpainting.quadratic_fit import fitted_quadratic
from cisi_runtime.inpainting.smooth_regions import RELAXATIONS, evenness, nearness, surface_weight
from cisi_runtime.pictures.masks import dilated, hole_box

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# The surface is sought in at most about this many blocks on the longer side, twice as many were no better; around a
# hole up to this part of its length, and at least so many pixels.
_MAX_BLOCKS = 96
_MARGIN, _MIN_MARGIN = 0.25, 16
# Blocks that must be known.
_MIN_KNOWN = 24
# Known pixels this near to the hole do not say whether it is smooth around: objects leave a rim.
_RIM = 2
# Grey levels by which the surface may leave the range of what is known.
_SLACK = 8.0
# Longer sides, in pixels, are met in averages of blocks.
_MAX_SIDE = 1024
# Known pixels this far from the surface, in grey levels, count a quarter: what is left of an object.
_OUTLIER = 12.0
# Of the square, in pixels, whose means the surface meets at the hole's edge, and of that whose mean is taken from
# detail, so that its grain is left.
_EDGE_RADIUS, _GRAIN_RADIUS = 2, 3


@dataclasses.dataclass(frozen=True)
class SmoothSurface:
    """A surface around and in a hole.

    box: rows and columns of the picture. block: side of the blocks, in pixels.
    values: `[h, w, 3]` in grey levels. weight: `[h, w]`, from 0 to 1, how much it counts.
    """

    box: tuple[slice, slice]
    block: int
    values: FloatArray
    weight: FloatArray

    def over(
        self, fill: UInt8Array, picture: UInt8Array, hole_mask: BoolArray, detailed: UInt8Array | None = None
    ) -> UInt8Array:
        """The fill with the surface laid over it where that counts, `[H, W, 3]`. Outside the hole it stays as it was.

        fill, picture: uint8 `[H, W, 3]`. hole_mask: bool `[H, W]`, True = hole; the one the surface was made for.
        detailed: uint8 `[H, W, 3]`, a fill whose grain the surface is to have.

        The outermost pixels are mixed with the means of their known neighbours, in the part that those have of what is
        around them, so that neither grain nor the steps of a slanted edge show.
        """
        result = fill.copy()
        hole = hole_mask[self.box]
        weight = _enlarged(self.weight, self.block, hole.shape)
        if self.block == 1:
            means, totals = known_means(picture[self.box].astype(np.float32), (~hole).astype(np.float32), 1)
            part = totals / (totals + np.float32(3.0))
        if detailed is not None:
            texture = np.ascontiguousarray(detailed[self.box])
            smooth = np.asarray(Image.fromarray(texture).filter(ImageFilter.BoxBlur(_GRAIN_RADIUS)))
        for band in range(3):  # one by one: for a large hole each takes as much memory as the picture
            before = fill[self.box][..., band]
            change = _enlarged(self.values[..., band], self.block, hole.shape)
            if detailed is not None:
                change = change + np.subtract(texture[..., band], smooth[..., band], dtype=np.float32)
            if self.block == 1:
                change = change + (means[..., band] - change) * part
            change = (change - before) * weight
            mixed = np.rint(np.clip(before + change, 0.0, 255.0)).astype(np.uint8)
            result[self.box][..., band] = np.where(hole, mixed, before)
        return result


def smooth_surface(picture: UInt8Array, fill: UInt8Array, hole_mask: BoolArray) -> SmoothSurface | None:
    """The surface of what is around a hole; None where nothing is smooth there, or hardly anything is known.

    picture, fill: uint8 `[H, W, 3]`, the second with the network's fill, blended; what the picture holds under the hole
    has no influence. hole_mask: bool `[H, W]`, True = hole.
    """
    if not hole_mask.any():
        return None
    length = max(edge.stop - edge.start for edge in hole_box(hole_mask, 0))
    margin = max(_MIN_MARGIN, int(length * _MARGIN))
    box, block = hole_box(hole_mask, margin), -(-(length + 2 * margin) // _MAX_BLOCKS)
    hole = hole_mask[box]
    blocks, known = averaged(picture[box], block).astype(np.float32), ~any_in_blocks(dilated(hole, _RIM), block)
    if known.sum() < _MIN_KNOWN:
        return None
    surface = fitted_quadratic(blocks, known.astype(np.float32))
    even = evenness((blocks - surface) * known[..., None], known, block)[1] * known
    if even.any():  # once more, without what is textured
        surface = fitted_quadratic(blocks, even)
    rest, even = evenness((blocks - surface) * known[..., None], known, block)
    smooth = even * nearness(rest)
    is_smooth = known & (smooth > 0.5)
    if not is_smooth.any():
        return None
    surface += pull_push(rest, is_smooth, default=0.0, relaxations=RELAXATIONS)
    weight = surface_weight(smooth, known, blocks, surface, averaged(fill[box], block).astype(np.float32))
    if not weight[any_in_blocks(hole, block)].any():
        return None
    around = blocks[is_smooth]
    surface = np.clip(surface, around.min(axis=0) - np.float32(_SLACK), around.max(axis=0) + np.float32(_SLACK))
    return _meeting(SmoothSurface(box, block, surface, weight), picture, hole_mask, smooth)


def _meeting(coarse: SmoothSurface, picture: UInt8Array, hole_mask: BoolArray, smooth: FloatArray) -> SmoothSurface:
    """The surface in smaller blocks, or pixels, where it meets what is known at the edge of the hole, and no farther.

    smooth: `[h, w]` of the coarse blocks.
    """
    box = hole_box(hole_mask, 2 * _EDGE_RADIUS)
    hole = hole_mask[box]
    block = max(1, max(hole.shape) // _MAX_SIDE)
    known = ~any_in_blocks(hole, block)
    start = tuple((fine.start - edge.start) / coarse.block for fine, edge in zip(box, coarse.box, strict=True))
    bands = (*np.moveaxis(coarse.values, 2, 0), coarse.weight, smooth)
    *surface_bands, weight, trust = (_enlarged(band, coarse.block / block, known.shape, start) for band in bands)
    surface: FloatArray = np.stack(surface_bands, axis=2)
    rest = averaged(picture[box], block) - surface
    trust = trust * known / np.square(1.0 + np.square(rest).mean(axis=2) / np.float32(_OUTLIER**2))
    means, totals = known_means(rest, trust, _EDGE_RADIUS)
    surface += pull_push(means, known & (totals > 1.0), default=0.0, relaxations=RELAXATIONS)
    return SmoothSurface(box, block, surface, weight)


def _enlarged(
    band: FloatArray, ratio: float, shape: tuple[int, ...], start: tuple[float, ...] = (0.0, 0.0)
) -> FloatArray:
    """The part of `[h, w]` from row and column `start` on, `ratio` times as large, to a shape."""
    if band.shape == shape and ratio == 1.0:
        return band
    (top, left), (height, width), (rows, columns) = start, shape, band.shape
    box = (left, top, min(left + width / ratio, columns), min(top + height / ratio, rows))
    large = Image.fromarray(np.ascontiguousarray(band)).resize((width, height), Image.Resampling.BILINEAR, box)
    return np.asarray(large)
