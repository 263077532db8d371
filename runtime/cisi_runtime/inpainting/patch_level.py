"""One level of the pyramid in which patches are matched: the picture, what of it is known, and what patches look like.

All features are integers, small enough that float32 sums of their products are exact. So a search gives the same
patches on every CPU, with any number of threads and in any order of summation.
"""

from __future__ import annotations

from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
Int32Array = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
_Item = TypeVar("_Item", bound=np.generic)

# Side of a cell in pixels. Cells tile the hole; the patch of a cell is its 3x3 neighbourhood of cells.
CELL = 3
PATCH = 3 * CELL
RADIUS = PATCH // 2
# Pixels around the picture, so that patches of the outermost cells fit: two cells.
PAD = 2 * CELL

# Radius of the box filter, applied twice, that makes the guide and the texture smooth.
_BLUR = 2
# Features are distances in grey levels times this. See `_MAX_TEXTURE`.
_SCALE = 0.5
# A mean absolute gradient that is off by one grey level counts as much as a patch that is off by this in each pixel.
_TEXTURE_WEIGHT = 1.5
# Larger mean gradients, in grey levels, count as this. With it the squared length of a feature vector is at most 2.9
# million: half of it minus a product of two vectors is below 2**23, up to where float32 holds every half, and the
# squared distance of two below 2**24, up to where it holds every whole number.
_MAX_TEXTURE = 100.0
# Three orthogonal directions of colour: grey, red against blue, green against both; and their lengths, inverted.
_NORMS = np.array([1 / 3, 1 / 2, 1 / 6]) ** 0.5
# Features of a patch: grey of its nine cells and two colours; of its guide: three colours; of its texture: two.
GUIDE = slice(11, 14)
FEATURES = 16


class PatchLevel:
    """A picture `[H, W, 3]` with the guide in its hole, padded to whole cells and by `PAD` on each side.

    unknown: bool `[H, W]`, pixels that no source patch may hold.
    target: bool `[H, W]`, pixels to be filled; part of `unknown`.

    Attributes, with H' and W' padded and `[h, w]` the cells:
    picture `[H', W', 3]`, target `[H', W']`;
    is_known `[h, w]`: cells that are known altogether;
    active `[h, w]`: cells whose patch holds a pixel to be filled;
    is_source `[H', W']`: centres of patches that are known altogether.
    """

    def __init__(self, picture: UInt8Array, unknown: BoolArray, target: BoolArray) -> None:
        self.size = unknown.shape
        edges = tuple((PAD, PAD + -side % CELL) for side in unknown.shape)
        self.picture = np.pad(picture, (*edges, (0, 0)), mode="edge")
        self.target = np.pad(target, edges)
        self._known = np.pad(~unknown, edges)
        cells = (self.target.shape[0] // CELL, self.target.shape[1] // CELL)
        tiles = self.target.reshape(cells[0], CELL, cells[1], CELL)
        has_target = np.logical_or.reduce(tiles, axis=(1, 3))
        self.is_known: BoolArray = np.logical_and.reduce(self._known.reshape(tiles.shape), axis=(1, 3))
        self.active: BoolArray = np.any(shifted(has_target, False), axis=0)
        self.active[[0, -1]] = False  # their patches would leave the padded picture
        self.active[:, [0, -1]] = False
        self.is_source = _box_sum(self._known[..., None], RADIUS)[..., 0] == PATCH**2

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of the picture within the padded one."""
        return slice(PAD, PAD + self.size[0]), slice(PAD, PAD + self.size[1])

    @cached_property
    def texture(self) -> FloatArray:
        """Mean absolute gradients of the known pixels around each pixel, across and down, `[H', W', 2]`."""
        grey: Int32Array = self.picture.sum(axis=2, dtype=np.int32)
        gradients: Int32Array = np.zeros((*grey.shape, 2), np.int32)
        gradients[:, :-1, 0] = np.abs(np.diff(grey, axis=1))
        gradients[:-1, :, 1] = np.abs(np.diff(grey, axis=0))
        known = self._known.copy()
        known[:, :-1] &= self._known[:, 1:]
        known[:-1] &= self._known[1:]
        smooth = _smooth_mean(gradients, known) / 3.0
        return np.minimum(smooth, _MAX_TEXTURE).astype(np.float32)

    def source_features(self, guide_weight: float) -> FloatArray:
        """`[H' * W', FEATURES]`: the features of every patch by its centre. Meant for patches that are sources.

        guide_weight: at most 1. A guide that is off by one grey level counts as much as a patch that is off by this in
        each pixel.
        """
        guide = _guide(_smooth_mean(self._colours, self._known), guide_weight)
        parts = (look_of(self.picture), guide, texture_features(self.texture))
        return np.concatenate(parts, axis=2).reshape(-1, FEATURES)

    def guide_features(self, guide_weight: float) -> FloatArray:
        """`[H', W', 3]`: the colours of the picture, the guide's in the hole, as features."""
        return _guide(_smooth_mean(self._colours, np.ones_like(self._known)), guide_weight)

    @cached_property
    def _colours(self) -> Int32Array:
        return np.stack(_opponent_colours(self.picture), axis=2)


def look_of(picture: UInt8Array) -> FloatArray:
    """What the patches around each pixel of `[H, W, 3]` look like: `[H, W, 11]`.

    The grey of its nine cells and two colours of the whole patch: the squared distance of two patches, but for what
    varies within a cell. More features (a DCT of 21, 24 principal components) gave the same LPIPS.
    """
    grey, *colours = _opponent_colours(picture)
    height, width = grey.shape
    cells = np.pad(_box_sum(grey[..., None], CELL // 2)[..., 0], CELL)
    look: FloatArray = np.empty((height, width, 11), np.float32)
    for number in range(9):
        down, right = CELL * (number // 3), CELL * (number % 3)
        look[..., number] = cells[down : down + height, right : right + width]
    look[..., :9] *= np.float32(_SCALE / CELL * _NORMS[0])
    look[..., 9:] = _box_sum(np.stack(colours, axis=2), RADIUS) * (_SCALE / PATCH * _NORMS[1:])
    np.rint(look, out=look)
    return look


def texture_features(texture: FloatArray) -> FloatArray:
    """Mean gradients `[..., 2]` as features."""
    features: FloatArray = np.rint(texture * np.float32(_SCALE * PATCH * _TEXTURE_WEIGHT))
    return features


def shifted(grid: npt.NDArray[_Item], outside: int) -> npt.NDArray[_Item]:
    """`[9, h, w]`: each cell of `[h, w]`, then its eight neighbours; `outside` beyond the edge."""
    height, width = grid.shape
    padded = np.pad(grid, 1, constant_values=outside)
    places = [(1, 1), *((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1))]
    return np.stack([padded[i : i + height, j : j + width] for i, j in places])


def _smooth_mean(values: Int32Array, known: BoolArray) -> npt.NDArray[np.float64]:
    """Means of the known ones of `[H, W, C]` around each pixel, by a box filter applied twice; 0 where none is near.
    The sums are exact."""
    weighted = np.concatenate([values * known[..., None], known[..., None]], axis=2, dtype=np.int32)
    sums = _box_sum(_box_sum(weighted, _BLUR), _BLUR)
    means: npt.NDArray[np.float64] = sums[..., :-1] / np.maximum(sums[..., -1:], 1)
    return means


def _guide(colours: npt.NDArray[np.float64], weight: float) -> FloatArray:
    guide: FloatArray = np.rint(colours * (_NORMS * (_SCALE * PATCH * weight))).astype(np.float32)
    return guide


def _opponent_colours(picture: UInt8Array) -> tuple[Int32Array, Int32Array, Int32Array]:
    red, green, blue = (picture[..., band].astype(np.int32) for band in range(3))
    return red + green + blue - 384, red - blue, 2 * green - red - blue


def _box_sum(values: npt.NDArray[np.generic], radius: int) -> Int32Array:
    """Sums of `[H, W, C]` over squares of `2 * radius + 1` pixels, 0 beyond the edges."""
    side = 2 * radius + 1
    padded = np.pad(values, ((radius + 1, radius), (radius + 1, radius), (0, 0)))
    sums: Int32Array = np.cumsum(padded, axis=0, dtype=np.int32)
    sums = np.cumsum(sums[side:] - sums[:-side], axis=1, dtype=np.int32)
    return sums[:, side:] - sums[:, :-side]
