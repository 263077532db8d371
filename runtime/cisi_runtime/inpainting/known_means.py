"""Local means of what is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


def known_means(values: FloatArray, weights: FloatArray, radius: int) -> tuple[FloatArray, FloatArray]:
    """Weighted means over squares of `2 * radius + 1` pixels, `[H, W, C]`, 0 where all weights are 0; and the sums of
    the weights, `[H, W]`.

    values: `[H, W, C]`, finite. weights: `[H, W]`, 0 for what is unknown.
    """
    weighted: FloatArray = np.concatenate([values * weights[..., None], weights[..., None]], axis=2)
    sums = _box_sums(weighted, radius)
    totals = sums[..., -1]
    some: FloatArray = np.where(totals > 0.0, totals, np.float32(1.0))
    means: FloatArray = np.divide(sums[..., :-1], some[..., None], dtype=np.float32)
    return means, totals


def _box_sums(values: FloatArray, radius: int) -> FloatArray:
    """`[H, W, C]`, 0 beyond the edges. In one order of summation, so alike on every CPU."""
    height, width = values.shape[:2]
    padded = np.pad(values, ((radius, radius), (radius, radius), (0, 0)))
    rows = padded[:height].copy()
    for offset in range(1, 2 * radius + 1):
        rows += padded[offset : offset + height]
    sums = rows[:, :width].copy()
    for offset in range(1, 2 * radius + 1):
        sums += rows[:, offset : offset + width]
    return sums
