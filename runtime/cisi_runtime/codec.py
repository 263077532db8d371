"""Between pixels (uint8, 0-255) and the network's range ([-1, 1]): the reference that the graph's codec must equal."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
Floating = TypeVar("Floating", np.float32, np.float64)


def decode_pixels(pixels: UInt8Array) -> npt.NDArray[np.float32]:
    """uint8 `[..., H, W, 3]` to float32 `[..., 3, H, W]` in [-1, 1]: 0 to -1, 255 to 1."""
    return np.ascontiguousarray(np.moveaxis(pixels.astype(np.float32) / np.float32(127.5) - np.float32(1), -1, -3))


def levels(values: npt.NDArray[Floating]) -> npt.NDArray[Floating]:
    """[-1, 1] to grey levels 0-255 before rounding, clipped; same shape and dtype."""
    one, half_range = values.dtype.type(1), values.dtype.type(127.5)
    clipped: npt.NDArray[Floating] = np.clip((values + one) * half_range, 0, 255)
    return clipped


def encode_pixels(values: npt.NDArray[Floating]) -> UInt8Array:
    """float `[..., 3, H, W]` in [-1, 1] to uint8 `[..., H, W, 3]`, rounding half to even (truncation would change 63
    of the 256 grey levels on the way there and back)."""
    return np.ascontiguousarray(np.moveaxis(np.rint(levels(values)).astype(np.uint8), -3, -1))
