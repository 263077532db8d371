"""What the backends that run on a GPU share: the buffers and graphs of a `Runner` behind a backend's interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.contract import Contract
from cisi_runtime.cuda.runner import DeviceArray, Runner, Tensor, on_device

# batch, height, width
Sides = tuple[int, int, int]


def face_tensors(contract: Contract, sides: Sides) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs of a graph's face for pictures of one batch, height and width."""
    batch, height, width = sides
    if contract.face == "uint8":
        dtype, image, hole_mask = np.dtype(np.uint8), (batch, height, width, 3), (batch, height, width)
    else:
        dtype, image, hole_mask = np.dtype(np.float32), (batch, 3, height, width), (batch, 1, height, width)  # type: ignore[assignment]
    shapes = zip(contract.inputs, (image, hole_mask), strict=True)
    return [Tensor(name, shape, dtype) for name, shape in shapes], [Tensor(contract.output, image, dtype)]


class GpuBackend(Backend):
    """A backend around a `Runner`. Not for use by itself."""

    def __init__(self, name: str, contract: Contract, fixed: FixedShape, runner: Runner) -> None:
        super().__init__(name, contract, fixed)
        self._runner = runner

    def warmup(self, sizes: Sequence[Sides]) -> None:
        """Make ready for batches, heights and widths, so that the first picture of each is as quick as the others.
        Raises ValueError for sizes that the graph does not take."""
        for sides in sizes:
            if not self.fixed.takes(sides):
                raise ValueError(f"warmup: the graph takes {self.fixed}, got {sides}")
            self._runner.warm_up(*face_tensors(self.contract, sides))

    def run_on_device(self, image: Any, hole_mask: Any) -> DeviceArray:
        """As `run`, for arrays in device memory (`__cuda_array_interface__`: PyTorch, CuPy, Numba) in C order. The
        result lies in this backend's buffer until the next call. Raises ValueError."""
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        tensors = [on_device(name, array)[0] for name, array in inputs.items()]
        # Of the same shape and type, without memory: what is given is checked as arrays on the host are.
        empty = [np.broadcast_to(np.zeros((), dtype=tensor.dtype), tensor.shape) for tensor in tensors]
        self._check(*empty)
        return self._runner.run_on_device(inputs, self._outputs(empty[0]))[0]

    def close(self) -> None:
        """Free the GPU's memory; the backend cannot be used any more."""
        self._runner.close()

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        return self._runner.run(inputs, self._outputs(image))[0]

    def _outputs(self, image: npt.NDArray[Any]) -> list[Tensor]:
        # The result has the image's shape and type in both faces.
        return [Tensor(self.contract.output, image.shape, image.dtype)]
