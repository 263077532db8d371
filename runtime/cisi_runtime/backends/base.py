"""The small interface that every backend has."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.codec import decode_pixels
from cisi_runtime.contract import Contract

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def graph_inputs(contract: Contract, image: UInt8Array, hole_mask: BoolArray) -> dict[str, npt.NDArray[Any]]:
    """Pixels uint8 `[N, H, W, 3]` and hole mask bool `[N, H, W]` (True = hole) as the inputs of a graph's face, by
    name."""
    if contract.face == "uint8":
        arrays: tuple[npt.NDArray[Any], npt.NDArray[Any]] = (image, hole_mask.astype(np.uint8) * np.uint8(255))
    else:
        arrays = (decode_pixels(image), hole_mask[:, None].astype(np.float32))
    return dict(zip(contract.inputs, arrays, strict=True))


@dataclasses.dataclass(frozen=True)
class FixedShape:
    """Batch, height and width that a graph was exported for; None: any that the contract allows."""

    batch: int | None = None
    height: int | None = None
    width: int | None = None

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a batch, height and width (the first three of `shape`) are these."""
        return all(own in (None, given) for own, given in zip(dataclasses.astuple(self), shape, strict=False))

    def limits(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Least and most batch, height and width; without bound is 1, and more than anybody has."""
        own = dataclasses.astuple(self)[:3]
        least, most = (tuple(side or free for side in own) for free in (1, 1 << 30))
        return (least[0], least[1], least[2]), (most[0], most[1], most[2])

    def __str__(self) -> str:
        batch, height, width = (side if side is not None else "any" for side in dataclasses.astuple(self))
        return f"batch {batch}, width {width}, height {height}"


class Backend(ABC):
    """A loaded graph. `run` checks what it is given; a backend implements `_run`."""

    def __init__(self, name: str, contract: Contract, fixed: FixedShape) -> None:
        self.name = name
        self.contract = contract
        self.fixed = fixed

    def run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run the graph on arrays of its own face (see `Contract`). Raises ValueError for another dtype or shape."""
        self._check(image, hole_mask)
        return self._run(image, hole_mask)

    def run_pixels(self, image: UInt8Array, hole_mask: BoolArray) -> npt.NDArray[Any]:
        """Run on uint8 `[N, H, W, 3]` and bool `[N, H, W]` (True = hole), whatever the graph's face is; the result is
        as the graph gives it: uint8 `[N, H, W, 3]`, or float32 `[N, 3, H, W]` in [-1, 1]."""
        inputs = graph_inputs(self.contract, image, hole_mask)
        return self.run(*(inputs[name] for name in self.contract.inputs))

    @abstractmethod
    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]: ...

    def _check(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> None:
        pixels = self.contract.face == "uint8"
        dtype = np.dtype(np.uint8 if pixels else np.float32)
        for name, array in zip(self.contract.inputs, (image, hole_mask), strict=True):
            if array.dtype != dtype:
                raise ValueError(f"{name}: expected {dtype}, got {array.dtype}")
        if image.ndim != 4 or image.shape[3 if pixels else 1] != 3:
            raise ValueError(f"image: expected {'[N, H, W, 3]' if pixels else '[N, 3, H, W]'}, got {image.shape}")
        batch, height, width = image.shape[:3] if pixels else (image.shape[0], *image.shape[2:])
        expected = (batch, height, width) if pixels else (batch, 1, height, width)
        if hole_mask.shape != expected:
            raise ValueError(f"hole_mask: expected {expected} for this image, got {hole_mask.shape}")
        if not self.fixed.takes((batch, height, width)):
            raise ValueError(f"image: the graph takes {self.fixed}, got batch {batch}, width {width}, height {height}")
        multiple, least = self.contract.size_multiple, self.contract.min_size
        if any(side % multiple or side < least for side in (height, width)):
            raise ValueError(
                f"image: expected sides that are multiples of {multiple}, {least} or more, got {height}x{width}"
            )
