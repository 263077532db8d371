"""The network on a whole picture in one pass: what evaluations measure."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.errors import GraphError
from cisi_runtime.inpainting.padding import pad

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


class SinglePassInpainter:
    """`SinglePassInpainter(backend)(image, hole_mask)`: one forward pass over the whole picture, padded and cropped by
    the contract's rule. Its cost grows with the picture; `Inpainter` is for photographs."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __call__(self, image: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
        """image: uint8 `[H, W, 3]` RGB. hole_mask: bool `[H, W]`, True = hole. Returns uint8 `[H, W, 3]`.

        Every known pixel stays as it was. A mask without a hole gives a copy of the picture. Raises GraphError when the
        graph takes one size that is not this picture's.
        """
        check_arrays(image, hole_mask)
        if not hole_mask.any():
            return image.copy()
        padded_image, padded_mask = pad(image, hole_mask, self.backend.contract)
        if not self.backend.fixed.accepts((1, *padded_mask.shape)):
            height, width = padded_mask.shape
            raise GraphError(
                f"the graph takes {self.backend.fixed}; the picture is {image.shape[1]}x{image.shape[0]}, padded "
                f"{width}x{height}: expected a graph for any size, or for this one"
            )
        completed = self.backend.run_pixels(padded_image[None], padded_mask[None])
        pixels = self.backend.contract.io.pixels(completed)[0]
        return np.ascontiguousarray(pixels[: image.shape[0], : image.shape[1]])


def check_arrays(image: UInt8Array, hole_mask: BoolArray) -> None:
    """Raise ValueError unless they are uint8 `[H, W, 3]` and bool `[H, W]`."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(f"image: expected uint8 [H, W, 3], got {image.dtype} {image.shape}")
    if hole_mask.dtype != np.bool_ or hole_mask.shape != image.shape[:2]:
        raise ValueError(f"hole_mask: expected bool {image.shape[:2]}, got {hole_mask.dtype} {hole_mask.shape}")
