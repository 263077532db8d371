"""Known values continued smoothly to where they are unknown."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.pictures.masks import hole_box

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Known pixels around a hole that are continued into it.
_MARGIN = 16


def extrapolate(image: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
    """Fill the hole with a smooth continuation of the known pixels near it. uint8 `[H, W, 3]`, bool `[H, W]`.

    Known pixels stay as they are, and what lies under the hole has no influence. Mid-grey where nothing is known.
    """
    if not hole_mask.any():
        return image
    box = hole_box(hole_mask, _MARGIN)
    result = image.copy()
    filled = pull_push(image[box].astype(np.float32), ~hole_mask[box], default=127.5)
    result[box] = np.rint(filled).astype(np.uint8)
    return result


def pull_push(values: FloatArray, known: BoolArray, *, default: float, relaxations: int = 0) -> FloatArray:
    """Values `[H, W, C]` where `known` `[H, W]` is True, elsewhere a smooth continuation; `default` if none is known.

    A pyramid of averages (Gortler et al., "The Lumigraph", 1996, section 3.4). Each of `relaxations` brings every level
    nearer to a membrane, which holds each pixel at the mean of its four neighbours: Jacobi's method.
    """
    if not known.any():
        return np.full_like(values, default)
    return _fill_from_pyramid(values * known[..., None], known.astype(np.float32), relaxations)


def _fill_from_pyramid(values: FloatArray, weights: FloatArray, relaxations: int) -> FloatArray:
    """values `[H, W, C]`, 0 where their weights `[H, W]`, in [0, 1], are 0."""
    if (weights == 1.0).all() or max(weights.shape) == 1:
        return values
    height, width = weights.shape
    sums, totals = _halved(values * weights[..., None]), _halved(weights[..., None])[..., 0]
    averages = np.divide(sums, totals[..., None], out=np.zeros_like(sums), where=totals[..., None] > 0)
    coarse = _fill_from_pyramid(averages, np.minimum(totals, 1.0).astype(np.float32), relaxations)
    bands = [
        np.asarray(Image.fromarray(coarse[..., band]).resize((width, height), Image.Resampling.BILINEAR))
        for band in range(coarse.shape[2])
    ]
    weight = weights[..., None]
    filled: FloatArray = weight * values + (1.0 - weight) * np.stack(bands, axis=2)
    return _relaxed(filled, weights < 1.0, relaxations) if relaxations else filled


def _relaxed(values: FloatArray, free: BoolArray, times: int) -> FloatArray:
    """`[H, W, C]`, nearer to a membrane where `free` `[H, W]` is True. Beyond the edge it is as at the edge."""
    padded: FloatArray = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="edge")
    inner = padded[1:-1, 1:-1]
    for _ in range(times):
        means = padded[:-2, 1:-1] + padded[2:, 1:-1]
        means += padded[1:-1, :-2]
        means += padded[1:-1, 2:]
        means *= np.float32(0.25)
        np.copyto(inner, means, where=free[..., None])
        padded[0], padded[-1] = padded[1], padded[-2]
        padded[:, 0], padded[:, -1] = padded[:, 1], padded[:, -2]
    return inner


def _halved(array: FloatArray) -> FloatArray:
    """Sums of 2x2 blocks of `[H, W, C]`. At odd ends the blocks are smaller."""
    height, width = array.shape[:2]
    even: FloatArray = np.pad(array, ((0, height % 2), (0, width % 2), (0, 0)))
    return even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
