"""What the GPU backends share: the buffers and captured graphs of a `Runner` behind a backend's interface."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.contract import Contract
from cisi_runtime.cuda.runner import DeviceArray, Runner, Tensor, on_device
from cisi_runtime.face import BatchSize


def face_tensors(contract: Contract, size: BatchSize) -> tuple[list[Tensor], list[Tensor]]:
    """Input and output tensors of a graph for one batch, height and width."""
    face = contract.io
    shapes = face.input_shapes(size)
    inputs = [Tensor(name, shape, face.dtype) for name, shape in shapes.items()]
    return inputs, [Tensor(contract.output, inputs[0].shape, face.dtype)]


class GpuBackend(Backend):
    """A backend around a `Runner`. Its subclasses make the runner."""

    def __init__(self, name: str, contract: Contract, fixed: FixedShape, runner: Runner) -> None:
        super().__init__(name, contract, fixed)
        self._runner = runner
        # To Python, memory of a GPU is a number: nothing else would free it for a backend that is dropped, not closed.
        self._free = weakref.finalize(self, runner.close)
        self._free.atexit = False  # the driver does

    def warmup(self, sizes: Sequence[BatchSize]) -> None:
        """Capture the work for these batches, heights and widths, so that their first pictures are as quick as the
        rest.

        Raises ValueError for sizes that the graph does not take.
        """
        for size in sizes:
            if not self.fixed.accepts(size):
                raise ValueError(f"warmup: the graph takes {self.fixed}, got {size}")
            self._runner.warm_up(*face_tensors(self.contract, size))

    def run_on_device(self, image: Any, hole_mask: Any) -> DeviceArray:
        """As `run`, for arrays in device memory (`__cuda_array_interface__`: PyTorch, CuPy, Numba) in C order.

        The result lies in this backend's buffer until the next call, and keeps the backend. Raises ValueError.
        """
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        tensors = [on_device(name, array)[0] for name, array in inputs.items()]
        # Arrays of the same shape and type that occupy no memory: they go through the checks of arrays on the host.
        stand_ins = [np.broadcast_to(np.zeros((), dtype=tensor.dtype), tensor.shape) for tensor in tensors]
        self._check(*stand_ins)
        (result,) = self._runner.run_on_device(inputs, self._outputs(stand_ins[0]))
        return dataclasses.replace(result, owner=self)

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        return self._runner.run(inputs, self._outputs(image))[0]

    def _close(self) -> None:
        self._free()

    def _outputs(self, image: npt.NDArray[Any]) -> list[Tensor]:
        # The result has the image's shape and type in both faces.
        return [Tensor(self.contract.output, image.shape, image.dtype)]
