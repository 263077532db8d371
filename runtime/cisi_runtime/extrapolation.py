"""Values that are known in some places continued smoothly into the others."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.blocks import surroundings

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Known pixels around a hole that are continued into it.
_MARGIN = 16


def extrapolate(image: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
    """uint8 `[H, W, 3]`: known pixels as they are, hole pixels (True) a smooth continuation of the known ones near the
    hole; what the picture holds under the hole has no influence. Mid-grey where nothing is known."""
    if not hole_mask.any():
        return image
    box = surroundings(hole_mask, _MARGIN)
    result = image.copy()
    filled = continued(image[box].astype(np.float32), ~hole_mask[box], nothing=127.5)
    result[box] = np.rint(filled).astype(np.uint8)
    return result


def continued(values: FloatArray, known: BoolArray, *, nothing: float) -> FloatArray:
    """values `[H, W, 3]` where known `[H, W]` is True, elsewhere a smooth continuation; `nothing` where none is known.

    Pull and push over a pyramid of averages (Gortler et al., "The Lumigraph", 1996, section 3.4).
    """
    if not known.any():
        return np.full_like(values, nothing)
    return _pulled_and_pushed(values * known[..., None], known.astype(np.float32))


def _pulled_and_pushed(values: FloatArray, known: FloatArray) -> FloatArray:
    """values `[H, W, 3]`, 0 where known `[H, W]`, in [0, 1], is 0."""
    if (known == 1.0).all() or max(known.shape) == 1:
        return values
    height, width = known.shape
    sums, weights = _halved(values * known[..., None]), _halved(known[..., None])[..., 0]
    smaller = np.divide(sums, weights[..., None], out=np.zeros_like(sums), where=weights[..., None] > 0)
    coarse = _pulled_and_pushed(smaller, np.minimum(weights, 1.0).astype(np.float32))
    bands = [
        np.asarray(Image.fromarray(coarse[..., band]).resize((width, height), Image.Resampling.BILINEAR))
        for band in range(3)
    ]
    weight = known[..., None]
    filled: FloatArray = weight * values + (1.0 - weight) * np.stack(bands, axis=2)
    return filled


def _halved(array: FloatArray) -> FloatArray:
    """Sums of two by two, of `[H, W, C]`; odd ends count alone."""
    height, width = array.shape[:2]
    even: FloatArray = np.pad(array, ((0, height % 2), (0, width % 2), (0, 0)))
    return even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
