"""Pinned and device memory, copies and a stream, by PyCUDA where it is installed, else by cuda-bindings.

Both work on the primary context. Streams and addresses are integers, so that either library's go into the other's
calls, into TensorRT and into ONNX Runtime.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cisi_runtime.cuda.driver import call, handle, use_primary_context
from cisi_runtime.errors import CudaError

# A stream that does not synchronise with the default stream.
_NON_BLOCKING = 1


class Memory(Protocol):
    """What `Runner` needs. Everything stays allocated until `close`; copies return at once and take place in the order
    of their stream. All raise CudaError."""

    name: str
    stream: int

    def pinned(self, nbytes: int) -> npt.NDArray[np.uint8]:
        """Page-locked host memory, uint8 `[nbytes]`."""

    def device(self, nbytes: int) -> int:
        """Address of device memory."""

    def copy_in(self, device: int, host: npt.NDArray[Any]) -> None:
        """From pinned host memory to the device."""

    def copy_out(self, host: npt.NDArray[Any], device: int) -> None:
        """From the device to pinned host memory."""

    def copy_on_device(self, to: int, source: int, nbytes: int) -> None:
        """Between device addresses."""

    def synchronise(self) -> None:
        """Wait until the stream is done."""

    def entered(self) -> AbstractContextManager[None]:
        """The context is current in the calling thread while the block runs; all other calls take place in one."""

    def close(self) -> None:
        """Free all of it; outside of `entered`."""


class BindingsMemory:
    """`Memory` by cuda-bindings."""

    name = "cuda-bindings"

    def __init__(self) -> None:
        self._device: list[Any] = []
        self._pinned: list[Any] = []
        use_primary_context()
        self._stream = call("cuStreamCreate", _NON_BLOCKING)
        self.stream = int(self._stream)

    def pinned(self, nbytes: int) -> npt.NDArray[np.uint8]:
        address = int(call("cuMemHostAlloc", nbytes, 0))
        self._pinned.append(address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * nbytes).from_address(address))

    def device(self, nbytes: int) -> int:
        address = call("cuMemAlloc", nbytes)
        self._device.append(address)
        return int(address)

    def copy_in(self, device: int, host: npt.NDArray[Any]) -> None:
        call("cuMemcpyHtoDAsync", handle("CUdeviceptr", device), host.ctypes.data, host.nbytes, self._stream)

    def copy_out(self, host: npt.NDArray[Any], device: int) -> None:
        call("cuMemcpyDtoHAsync", host.ctypes.data, handle("CUdeviceptr", device), host.nbytes, self._stream)

    def copy_on_device(self, to: int, source: int, nbytes: int) -> None:
        call("cuMemcpyDtoDAsync", handle("CUdeviceptr", to), handle("CUdeviceptr", source), nbytes, self._stream)

    def synchronise(self) -> None:
        call("cuStreamSynchronize", self._stream)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        use_primary_context()
        yield

    def close(self) -> None:
        use_primary_context()
        while self._device:
            call("cuMemFree", self._device.pop())
        while self._pinned:
            call("cuMemFreeHost", self._pinned.pop())
        if self.stream:
            call("cuStreamDestroy", self._stream)
            self.stream = 0


class PyCudaMemory:
    """`Memory` by PyCUDA, whose `autoinit` would make a context of its own that clashes with PyTorch's."""

    name = "PyCUDA"

    def __init__(self) -> None:
        import pycuda.driver

        self._cuda = pycuda.driver
        self._errors = (pycuda.driver.Error, pycuda.driver.LogicError)
        self._device: list[Any] = []
        self._pinned: list[Any] = []
        self._try("init", self._cuda.init)
        self._context = self._try("retain_primary_context", self._cuda.Device(0).retain_primary_context)
        with self.entered():
            self._stream = self._try("Stream", self._cuda.Stream, _NON_BLOCKING)
        self.stream = int(self._stream.handle)

    def pinned(self, nbytes: int) -> npt.NDArray[np.uint8]:
        array: npt.NDArray[np.uint8] = self._try("pagelocked_empty", self._cuda.pagelocked_empty, nbytes, np.uint8)
        self._pinned.append(array)
        return array

    def device(self, nbytes: int) -> int:
        allocation = self._try("mem_alloc", self._cuda.mem_alloc, nbytes)
        self._device.append(allocation)
        return int(allocation)

    def copy_in(self, device: int, host: npt.NDArray[Any]) -> None:
        self._try("memcpy_htod_async", self._cuda.memcpy_htod_async, device, host, self._stream)

    def copy_out(self, host: npt.NDArray[Any], device: int) -> None:
        self._try("memcpy_dtoh_async", self._cuda.memcpy_dtoh_async, host, device, self._stream)

    def copy_on_device(self, to: int, source: int, nbytes: int) -> None:
        self._try("memcpy_dtod_async", self._cuda.memcpy_dtod_async, to, source, nbytes, self._stream)

    def synchronise(self) -> None:
        self._try("Stream.synchronize", self._stream.synchronize)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        # Its functions look for the context in PyCUDA's own stack of the thread, not in the driver's.
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()

    def close(self) -> None:
        with self.entered():
            while self._device:
                self._device.pop().free()
            while self._pinned:
                self._pinned.pop().base.free()
            # PyCUDA destroys a stream with its object.
            self._stream = None
        self.stream = 0

    def _try(self, name: str, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._errors as error:
            raise CudaError(f"PyCUDA: {name} failed: {error}") from error


def open_memory() -> Memory:
    """By PyCUDA where it is installed, else by cuda-bindings; `name` says which. Raises CudaError."""
    return PyCudaMemory() if find_spec("pycuda") else BindingsMemory()
