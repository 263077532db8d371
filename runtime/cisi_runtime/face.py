"""The two faces of a graph: what its inputs and output look like from outside."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.codec import decode_pixels, encode_pixels

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]
Shape = tuple[int, ...]
# Batch, height and width.
BatchSize = tuple[int, int, int]

IMAGE, HOLE_MASK, COMPLETED = "image", "hole_mask", "completed"


@dataclasses.dataclass(frozen=True)
class Face:
    """Layout and type of a graph's image, hole mask and completed image.

    name: "uint8" or "tensor".
    dtype: of all three arrays.
    axes: where batch, height and width stand, in the image and in the mask alike.
    """

    name: str
    dtype: np.dtype[Any]
    axes: tuple[int, int, int]

    @property
    def takes_pixels(self) -> bool:
        """True for uint8 pixels, channels last; False for float32 in [-1, 1], channels first."""
        return self.name == "uint8"

    @property
    def onnx_type(self) -> str:
        """The type of the inputs and the output as ONNX Runtime names it."""
        return "tensor(uint8)" if self.takes_pixels else "tensor(float)"

    def input_shapes(self, size: BatchSize) -> dict[str, Shape]:
        """Shapes of image and hole mask, by name. The completed image has the image's shape."""
        batch, height, width = size
        if self.takes_pixels:
            return {IMAGE: (batch, height, width, 3), HOLE_MASK: (batch, height, width)}
        return {IMAGE: (batch, 3, height, width), HOLE_MASK: (batch, 1, height, width)}

    def size_of(self, image: Array) -> BatchSize:
        """Batch, height and width of an image. Raises ValueError unless it has four axes and three channels."""
        if image.ndim != 4 or image.shape[3 if self.takes_pixels else 1] != 3:
            expected = "[N, H, W, 3]" if self.takes_pixels else "[N, 3, H, W]"
            raise ValueError(f"{IMAGE}: expected {expected}, got {image.shape}")
        batch, height, width = (image.shape[axis] for axis in self.axes)
        return batch, height, width

    def check(self, image: Array, hole_mask: Array) -> BatchSize:
        """Batch, height and width of a pair of inputs. Raises ValueError when their types or shapes are not these."""
        for name, array in ((IMAGE, image), (HOLE_MASK, hole_mask)):
            if array.dtype != self.dtype:
                raise ValueError(f"{name}: expected {self.dtype}, got {array.dtype}")
        size = self.size_of(image)
        expected = self.input_shapes(size)[HOLE_MASK]
        if hole_mask.shape != expected:
            raise ValueError(f"{HOLE_MASK}: expected {expected} for this image, got {hole_mask.shape}")
        return size

    def inputs(self, image: UInt8Array, hole_mask: BoolArray) -> dict[str, Array]:
        """Pixels uint8 `[N, H, W, 3]` and hole mask bool `[N, H, W]` (True = hole) as a graph's inputs, by name."""
        if self.takes_pixels:
            return {IMAGE: image, HOLE_MASK: hole_mask.astype(np.uint8) * np.uint8(255)}
        return {IMAGE: decode_pixels(image), HOLE_MASK: hole_mask[:, None].astype(np.float32)}

    def pixels(self, completed: Array) -> UInt8Array:
        """A graph's output as uint8 `[N, H, W, 3]`."""
        if self.takes_pixels:
            return completed.astype(np.uint8, copy=False)
        # Picture by picture: a large batch at once would need several times its memory.
        return np.stack([encode_pixels(picture) for picture in completed])


# `uint8` is what people deploy: normalising, compositing and rounding are inside the graph. `tensor` is for parity,
# calibration and other people's pipelines.
FACES = {
    "uint8": Face("uint8", np.dtype(np.uint8), (0, 1, 2)),
    "tensor": Face("tensor", np.dtype(np.float32), (0, 2, 3)),
}
