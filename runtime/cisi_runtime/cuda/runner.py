"""Arrays in host memory through work on a GPU and back, with nothing allocated or captured twice."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.cuda.capture import CapturedGraph, begin_capture, end_capture, wait_for
from cisi_runtime.cuda.memory import Memory
from cisi_runtime.errors import CudaError

# Puts the work of one shape into a stream (its handle). It must not allocate, nor wait for anything.
Enqueue = Callable[[int], None]
# Shapes whose captured graphs, and scratch memory, are kept: those used last.
_MAX_PLANS = 8


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Name, shape and type of an array."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class DeviceArray:
    """An array in device memory, in C order, for libraries that read `__cuda_array_interface__` (PyTorch, CuPy, Numba).

    It lies in the runner's own buffer: the next call overwrites it. owner: what must live as long as the buffer.
    """

    address: int
    tensor: Tensor
    owner: object = None

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        # Version 3 of the protocol; without "stream" the data is complete.
        return {
            "shape": self.tensor.shape,
            "typestr": self.tensor.dtype.str,
            "data": (self.address, False),
            "version": 3,
        }


@dataclasses.dataclass
class _Plan:
    """What one shape needs.

    inputs, outputs: views of the pinned host buffers.
    enqueue: puts the work into a stream.
    with_copies: captured graph of the work and the copies from and to the host.
    without_copies: captured graph of the work alone.
    """

    inputs: list[npt.NDArray[Any]]
    outputs: list[npt.NDArray[Any]]
    enqueue: Enqueue
    with_copies: CapturedGraph | None = None
    without_copies: CapturedGraph | None = None


class Runner:
    """Copy in, work, copy out on one stream.

    Pinned and device buffers of the largest size are allocated once. After a warm-up run the three steps of a shape are
    captured in one CUDA graph. Calls from several threads take turns. Raises CudaError.

    memory: the runner closes it.
    largest_inputs, largest_outputs: tensors that the buffers must hold.
    make: takes the input and output tensors of a shape and their device addresses by name; returns what puts the work
        into a stream, and keeps alive what that needs.
    capture: False for work that cannot be captured, or captures itself.
    """

    def __init__(
        self,
        memory: Memory,
        largest_inputs: Sequence[Tensor],
        largest_outputs: Sequence[Tensor],
        make: Callable[[Sequence[Tensor], Mapping[str, int]], Enqueue],
        *,
        capture: bool = True,
    ) -> None:
        self.memory = memory
        self._make, self._capture = make, capture
        self._lock = threading.Lock()
        self._plans: OrderedDict[tuple[Tensor, ...], _Plan] = OrderedDict()
        self._is_open = True
        tensors = (*largest_inputs, *largest_outputs)
        self._input_names = [tensor.name for tensor in largest_inputs]
        try:
            with memory.entered():
                self._host = {tensor.name: memory.pinned(tensor.nbytes) for tensor in tensors}
                self._device = {tensor.name: memory.device(tensor.nbytes) for tensor in tensors}
        except BaseException:
            memory.close()
            raise

    def run(self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[Tensor]) -> list[npt.NDArray[Any]]:
        """Run on host arrays. inputs: by name. outputs: the tensors that come out for them. Returns copies, in
        order."""
        tensors = [Tensor(name, inputs[name].shape, inputs[name].dtype) for name in self._input_names]
        with self._turn():
            plan = self._plan(tensors, outputs)
            for array, name in zip(plan.inputs, self._input_names, strict=True):
                np.copyto(array, inputs[name])
            if plan.with_copies is not None:
                plan.with_copies.launch(self.memory.stream)
            else:
                self._steps(plan)
            self.memory.synchronise()
            return [array.copy() for array in plan.outputs]

    def run_on_device(self, inputs: Mapping[str, Any], outputs: Sequence[Tensor]) -> list[DeviceArray]:
        """As `run`, for objects with `__cuda_array_interface__` in C order. Nothing passes through the host: pixels are
        copied on the device into the buffers that the captured work reads."""
        arrays = [on_device(name, inputs[name]) for name in self._input_names]
        with self._turn():
            plan = self._plan([tensor for tensor, _, _ in arrays], outputs)
            for tensor, source, stream in arrays:
                if stream is not None:
                    wait_for(stream, self.memory.stream)
                self.memory.copy_on_device(self._device[tensor.name], source, tensor.nbytes)
            if plan.without_copies is not None:
                plan.without_copies.launch(self.memory.stream)
            else:
                plan.enqueue(self.memory.stream)
            self.memory.synchronise()
            return [DeviceArray(self._device[tensor.name], tensor) for tensor in outputs]

    def warm_up(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Prepare a shape, so that its first call is as quick as the rest."""
        with self._turn():
            self._plan(inputs, outputs)

    def close(self) -> None:
        """Free everything. The runner cannot be used afterwards."""
        with self._turn():
            for plan in self._plans.values():
                _close(plan)
            self._plans.clear()
            self._is_open = False
        self.memory.close()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        with self._lock:
            if not self._is_open:
                raise CudaError("the runner is closed")
            with self.memory.entered():
                yield

    def _plan(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> _Plan:
        key = (*inputs, *outputs)
        if key in self._plans:
            self._plans.move_to_end(key)
            return self._plans[key]
        for tensor in key:
            if tensor.nbytes > self._host[tensor.name].nbytes:
                raise CudaError(f"{tensor.name}: shape {tensor.shape} is larger than the buffers made for it")
        while len(self._plans) >= _MAX_PLANS:
            _close(self._plans.popitem(last=False)[1])
        plan = _Plan(
            [self._view(tensor) for tensor in inputs],
            [self._view(tensor) for tensor in outputs],
            self._make(key, self._device),
        )
        # A first run allocates and compiles, which must not happen within a capture.
        for array in plan.inputs:
            array.fill(0)
        self._steps(plan)
        self.memory.synchronise()
        if self._capture:
            plan.with_copies = self._captured(lambda: self._steps(plan))
            plan.without_copies = self._captured(lambda: plan.enqueue(self.memory.stream))
        self._plans[key] = plan
        return plan

    def _view(self, tensor: Tensor) -> npt.NDArray[Any]:
        return self._host[tensor.name][: tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)

    def _steps(self, plan: _Plan) -> None:
        for name, array in zip(self._input_names, plan.inputs, strict=True):
            self.memory.copy_in(self._device[name], array)
        plan.enqueue(self.memory.stream)
        outputs = [name for name in self._host if name not in self._input_names]
        for name, array in zip(outputs, plan.outputs, strict=True):
            self.memory.copy_out(array, self._device[name])

    def _captured(self, work: Callable[[], None]) -> CapturedGraph:
        begin_capture(self.memory.stream)
        try:
            work()
        except BaseException:
            # The stream must leave the capture. The first error matters more than another one here.
            with contextlib.suppress(CudaError):
                end_capture(self.memory.stream).close()
            raise
        return end_capture(self.memory.stream)


def _close(plan: _Plan) -> None:
    for graph in (plan.with_copies, plan.without_copies):
        if graph is not None:
            graph.close()


def on_device(name: str, array: Any) -> tuple[Tensor, int, int | None]:
    """What `__cuda_array_interface__` says: the tensor, its address, and the stream to wait for (None: it is complete).

    Raises ValueError for an object without it, and for an array that is not in C order.
    """
    facts = getattr(array, "__cuda_array_interface__", None)
    if facts is None:
        raise ValueError(f"{name}: expected an array in device memory (with __cuda_array_interface__)")
    dtype, shape = np.dtype(facts["typestr"]), tuple(facts["shape"])
    strides = facts.get("strides")
    in_order = tuple(dtype.itemsize * int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    if strides is not None and tuple(strides) != in_order:
        raise ValueError(f"{name}: expected an array in C order, got strides {strides}")
    return Tensor(name, shape, dtype), int(facts["data"][0]), facts.get("stream")
