"""Pictures of any size, inpainted by a backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.codec import encode_pixels
from cisi_runtime.errors import GraphError
from cisi_runtime.padding import pad

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# The graph and golden file that ship with the package.
SHIPPED_GRAPH = Path(__file__).parent / "weights" / "small.onnx"


class Inpainter:
    """`Inpainter(backend)(image, hole_mask)`: fills the hole of one picture and touches nothing else."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __call__(self, image: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
        """image uint8 `[H, W, 3]` RGB, hole_mask bool `[H, W]`, True = hole; any size. Returns the completed picture,
        uint8 `[H, W, 3]`; every known pixel is as it was. A mask without a hole returns a copy of the picture. Raises
        GraphError for a graph of one size that is not this picture's."""
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"image: expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
        if hole_mask.dtype != np.bool_ or hole_mask.shape != image.shape[:2]:
            raise ValueError(f"hole_mask: expected bool {image.shape[:2]}, got {hole_mask.dtype} {hole_mask.shape}")
        if not hole_mask.any():
            return image.copy()
        padded_image, padded_mask = pad(image, hole_mask, self.backend.contract)
        if not self.backend.fixed.takes((1, *padded_mask.shape)):
            height, width = padded_mask.shape
            raise GraphError(
                f"the graph takes {self.backend.fixed}; the picture is {image.shape[1]}x{image.shape[0]}, padded "
                f"{width}x{height}: expected a graph for any size, or for this one"
            )
        completed = self.backend.run_pixels(padded_image[None], padded_mask[None])[0]
        pixels = completed if completed.dtype == np.uint8 else encode_pixels(completed)
        return np.ascontiguousarray(pixels[: image.shape[0], : image.shape[1]])
