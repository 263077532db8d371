"""Pixels of a hole from the sources of its cells: averages of overlapping patches, or copies at any resolution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cisi_runtime.inpainting.patch_level import CELL, PAD, RADIUS, PatchLevel
from cisi_runtime.inpainting.patch_match import Offsets

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Of the Gaussian by which a patch counts less towards its edges, in pixels.
_SIGMA = 2.8
# exp(-t^2 / 2 sigma^2) for t from -RADIUS to RADIUS, rounded so that it does not depend on the CPU's exponential.
_WINDOW = np.round(np.exp(-(np.arange(-RADIUS, RADIUS + 1) ** 2) / (2.0 * _SIGMA**2)), 4).astype(np.float32)
# Pixels rendered at a time, to bound memory.
_CHUNK = 1 << 18


def vote(level: PatchLevel, offsets: Offsets, estimate: UInt8Array) -> tuple[UInt8Array, FloatArray]:
    """The average of the source patches that cover each pixel, in place of the estimate `[H', W', 3]` in the hole.

    Returns it, and the mean gradients of the sources of each cell, `[h, w, 2]`.
    """
    rows, columns = np.nonzero(offsets.weight)
    width = level.target.shape[1]
    centres = (CELL * rows + CELL // 2 + offsets.down[rows, columns]) * width
    centres += CELL * columns + CELL // 2 + offsets.right[rows, columns]
    weight = offsets.weight[rows, columns]
    pixels = np.concatenate([level.picture.reshape(-1, 3), np.ones((level.target.size, 1), np.uint8)], axis=1)
    gradients = level.texture.reshape(-1, 2)[centres]
    gradients = np.concatenate([gradients, np.ones((len(gradients), 1), np.float32)], axis=1) * weight[:, None]
    sums: FloatArray = np.zeros((*level.active.shape, CELL, CELL, 4), np.float32)
    gradient_sums: FloatArray = np.zeros((*level.active.shape, 3), np.float32)
    for number in range(9):  # the cells of a patch
        down, right = number // 3, number % 3
        place_rows = np.arange(CELL) + CELL * down - RADIUS
        place_columns = np.arange(CELL) + CELL * right - RADIUS
        window = _WINDOW[place_rows + RADIUS][:, None] * _WINDOW[place_columns + RADIUS]
        places = centres[:, None, None] + place_rows[:, None] * width + place_columns
        sums[rows + down - 1, columns + right - 1] += pixels[places] * (weight[:, None, None] * window)[..., None]
        gradient_sums[rows + down - 1, columns + right - 1] += gradients * window[1, 1]
    totals = sums.transpose(0, 2, 1, 3, 4).reshape(*level.target.shape, 4)
    covered = level.target & (totals[..., 3] > 0.0)
    result = estimate.copy()
    result[covered] = np.rint(totals[covered][:, :3] / totals[covered][:, 3:]).astype(np.uint8)
    total = gradient_sums[..., 2:]
    texture: FloatArray = np.divide(gradient_sums[..., :2], np.where(total > 0.0, total, 1.0), dtype=np.float32)
    return result, texture


def render(picture: UInt8Array, target: BoolArray, offsets: Offsets, factor: int) -> UInt8Array:
    """The hole's pixels copied from their cells' sources in a picture `factor` times as fine as the level.

    picture: uint8 `[H, W, 3]`. target: bool `[H, W]`. Each pixel is a mixture of what the four nearest cells copy,
    weighted bilinearly and by how well they suit: a plain copy wherever they share an offset.
    """
    height, width = target.shape
    rows, row_weights = _between_cells(height, factor)
    columns, column_weights = _between_cells(width, factor)
    # Four bytes a pixel are fetched at once.
    packed = np.zeros((height, width, 4), np.uint8)
    packed[..., :3] = picture
    pixels = packed.view(np.uint32).ravel()
    jumps = (offsets.down * width + offsets.right) * factor
    result = picture.copy(order="C")
    places = np.flatnonzero(target)
    for start in range(0, len(places), _CHUNK):
        chunk = places[start : start + _CHUNK]
        y, x = chunk // width, chunk % width
        values: FloatArray = np.zeros((len(chunk), 3), np.float32)
        weights: FloatArray = np.zeros(len(chunk), np.float32)
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            i, j = rows[y] + down, columns[x] + right
            weight = offsets.weight[i, j] * row_weights[down][y] * column_weights[right][x]
            sources = np.where(weight > 0.0, chunk + jumps[i, j], chunk)
            values += pixels[sources].view(np.uint8).reshape(-1, 4)[:, :3] * weight[:, None]
            weights += weight
        covered = weights > 0.0
        result.reshape(-1, 3)[chunk[covered]] = np.rint(values[covered] / weights[covered, None]).astype(np.uint8)
    return result


def _between_cells(length: int, factor: int) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """For each pixel along an axis the last cell whose centre is not behind it, and the bilinear weights of that and of
    the next one, `[2, length]`."""
    cell = CELL * factor
    position = (np.arange(length) + PAD * factor - (cell - 1) / 2) / cell
    index = np.floor(position)
    return index.astype(np.intp), np.stack([1.0 - (position - index), position - index]).astype(np.float32)
