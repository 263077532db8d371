"""The interface that every backend has."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError
from cisi_runtime.face import BatchSize

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
# Stands for "no upper bound" where a number is needed; no picture or batch is that large.
_UNBOUNDED = 1 << 30


@dataclasses.dataclass(frozen=True)
class FixedShape:
    """Batch, height and width that a graph was exported for; None where it takes any that the contract allows."""

    batch: int | None = None
    height: int | None = None
    width: int | None = None

    @property
    def sides(self) -> tuple[int | None, int | None, int | None]:
        """Batch, height and width as a tuple."""
        return self.batch, self.height, self.width

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether the graph takes a batch, height and width: the first three of `shape`."""
        return all(fixed in (None, side) for fixed, side in zip(self.sides, shape, strict=False))

    def limits(self) -> tuple[BatchSize, BatchSize]:
        """Smallest and largest batch, height and width. Where there is no bound: 1, and 2**30."""
        smallest, largest = (tuple(side or free for side in self.sides) for free in (1, _UNBOUNDED))
        return (smallest[0], smallest[1], smallest[2]), (largest[0], largest[1], largest[2])

    def __str__(self) -> str:
        batch, height, width = (side if side is not None else "any" for side in self.sides)
        return f"batch {batch}, width {width}, height {height}"


class Backend(ABC):
    """A loaded graph, engine or checkpoint. A context manager: leaving it closes the backend.

    `run` checks its arguments. A backend implements `_run` and `_close`, and `_prepare` where there is
    something to prepare.

    precision: "stored": what the contract says, or "bf16", of a float32 graph. The attribute is what parity judges by:
        "float32", "float16", "int8" or "bf16".
    """

    def __init__(self, name: str, contract: Contract, fixed: FixedShape, precision: str = "stored") -> None:
        self.name = name
        self.contract = contract
        self.fixed = fixed
        self.precision = contract.precision if precision == "stored" else precision
        self._is_closed = False

    def run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Run on arrays in the layout of the contract's face (see `Contract.io`).

        Raises ValueError for another dtype, shape or size, GraphError after `close`.
        """
        self._check(image, hole_mask)
        return self._run(image, hole_mask)

    def run_pixels(self, image: UInt8Array, hole_mask: BoolArray) -> npt.NDArray[Any]:
        """Run on uint8 `[N, H, W, 3]` and bool `[N, H, W]` (True = hole), whatever the face is. The result is in the
        face's layout: uint8 `[N, H, W, 3]`, or float32 `[N, 3, H, W]` in [-1, 1]."""
        return self.run(*self.contract.io.inputs(image, hole_mask).values())

    def prepare(self, size: BatchSize) -> str | None:
        """Do what the first call of a batch, height and width would do. Says what that was, None if nothing.

        Raises ValueError for a size that `run` refuses, GraphError after `close`.
        """
        self._check_open()
        self._check_size(size)
        return self._prepare(size)

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._is_closed

    def close(self) -> None:
        """Release memory and handles. The backend cannot be used afterwards; closing it again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]: ...

    @abstractmethod
    def _close(self) -> None: ...

    def _prepare(self, size: BatchSize) -> str | None:  # noqa: ARG002
        """For backends that have something to prepare."""
        return None

    def _check(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> None:
        self._check_open()
        self._check_size(self.contract.io.check(image, hole_mask))

    def _check_open(self) -> None:
        if self._is_closed:
            raise GraphError(f"{self.name}: the backend is closed")

    def _check_size(self, size: BatchSize) -> None:
        batch, height, width = size
        if not self.fixed.accepts(size):
            raise ValueError(f"image: the graph takes {self.fixed}, got batch {batch}, width {width}, height {height}")
        multiple, min_size = self.contract.size_multiple, self.contract.min_size
        if any(side % multiple or side < min_size for side in (height, width)):
            raise ValueError(
                f"image: expected sides that are multiples of {multiple}, {min_size} or more, got {height}x{width}"
            )
