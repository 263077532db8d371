"""Run by tests with a stand-in for the CUDA driver (`cuda_stand_in.c`): the code that real cards run, with ONNX Runtime
on the CPU in the place of a kernel. Prints what it found as JSON."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import threading
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cisi_runtime.backends.gpu import GpuBackend, face_tensors
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.ort_cuda import BoundSession
from cisi_runtime.cuda.driver import call, find_gpu, handle, use_primary_context
from cisi_runtime.cuda.memory import BindingsMemory, PyCudaMemory, open_memory
from cisi_runtime.cuda.runner import Enqueue, Runner, Tensor
from cisi_runtime.errors import CudaError, GraphError

_HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
TRACE = Path(os.environ["CUDA_STAND_IN_TRACE"])


class HostWork:
    """Work for a stream: ONNX Runtime on the arrays at the device's addresses, when the stream gets there."""

    def __init__(self, backend: OnnxRuntimeBackend) -> None:
        self._backend = backend
        self._kept: list[Any] = []
        self.plans = 0

    def plan(self, tensors: Sequence[Tensor], addresses: Mapping[str, int]) -> Enqueue:
        self.plans += 1
        arrays = []
        for tensor in tensors:
            memory = (ctypes.c_uint8 * tensor.nbytes).from_address(addresses[tensor.name])
            arrays.append(np.ctypeslib.as_array(memory).view(tensor.dtype).reshape(tensor.shape))
        image, hole_mask, completed = arrays

        def work(_data: object) -> None:
            completed[...] = self._backend.run(image, hole_mask)

        function = _HOST_FUNCTION(work)
        self._kept.append(function)
        address = ctypes.cast(function, ctypes.c_void_p).value

        def enqueue(stream: int) -> None:
            call("cuLaunchHostFunc", handle("CUstream", stream), handle("CUhostFn", address), 0)

        return enqueue


def calls() -> list[str]:
    """What was called since the last time."""
    found = TRACE.read_text().splitlines()
    os.truncate(TRACE, 0)
    return [line.split()[0] for line in found]


def pictures(batch: int, height: int, width: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    return image, np.where(rng.random((batch, height, width)) < 0.3, np.uint8(255), np.uint8(0))


class OnDevice:
    """An array that a caller has in device memory."""

    def __init__(self, array: Any) -> None:
        self.address = call("cuMemAlloc", array.nbytes)
        ctypes.memmove(int(self.address), array.ctypes.data, array.nbytes)
        facts = {"shape": array.shape, "typestr": array.dtype.str, "data": (int(self.address), False), "version": 3}
        self.__cuda_array_interface__ = facts


def pycuda_stand_in() -> tuple[types.ModuleType, types.ModuleType]:
    """What `PyCudaMemory` uses of PyCUDA: everything looks for a context in a stack of each thread, and objects free
    themselves."""
    package, driver, stacks = types.ModuleType("pycuda"), types.ModuleType("pycuda.driver"), threading.local()

    class LogicError(Exception):
        """PyCUDA's."""

    def active() -> None:
        if not getattr(stacks, "contexts", None):
            raise LogicError("no currently active context?")

    class Context:
        def push(self) -> None:
            stacks.contexts = [*getattr(stacks, "contexts", []), self]
            use_primary_context()

        def pop(self) -> None:
            stacks.contexts.pop()

    class Device:
        def __init__(self, _number: int) -> None: ...

        def retain_primary_context(self) -> Context:
            return Context()

    class Stream:
        def __init__(self, flags: int) -> None:
            active()
            self._own = call("cuStreamCreate", flags)
            self.handle = int(self._own)

        def synchronize(self) -> None:
            active()
            call("cuStreamSynchronize", self._own)

        def __del__(self) -> None:
            call("cuStreamDestroy", self._own)

    class Allocation:
        def __init__(self, name: str, address: Any) -> None:
            self._name, self._address = name, address

        def __int__(self) -> int:
            return int(self._address)

        def free(self) -> None:
            active()
            call(self._name, self._address)

    def pagelocked_empty(nbytes: int, _dtype: Any) -> Any:
        active()
        allocation = Allocation("cuMemFreeHost", call("cuMemHostAlloc", nbytes, 0))
        facts = {"shape": (nbytes,), "typestr": "|u1", "data": (int(allocation), False), "version": 3}
        allocation.__array_interface__ = facts  # type: ignore[attr-defined]
        # Its `base` is the allocation, as with PyCUDA.
        return np.asarray(allocation)

    def copy(name: str) -> Any:
        def asynchronous(to: Any, source: Any, *rest: Any) -> None:
            active()
            *size, stream = rest
            host = next((x for x in (to, source) if isinstance(x, np.ndarray)), None)
            ends = [x.ctypes.data if isinstance(x, np.ndarray) else handle("CUdeviceptr", x) for x in (to, source)]
            call(name, *ends, size[0] if size else host.nbytes, handle("CUstream", stream.handle))

        return asynchronous

    def mem_alloc(nbytes: int) -> Allocation:
        active()
        return Allocation("cuMemFree", call("cuMemAlloc", nbytes))

    driver.Error, driver.LogicError, driver.Device, driver.Stream = LogicError, LogicError, Device, Stream
    driver.init = lambda: call("cuInit", 0)
    driver.pagelocked_empty, driver.mem_alloc = pagelocked_empty, mem_alloc
    driver.memcpy_htod_async, driver.memcpy_dtoh_async = copy("cuMemcpyHtoDAsync"), copy("cuMemcpyDtoHAsync")
    driver.memcpy_dtod_async = copy("cuMemcpyDtoDAsync")
    package.driver = driver
    return package, driver


def main(graph: Path) -> None:
    found: dict[str, Any] = {"gpu": str(find_gpu())}
    reference = OnnxRuntimeBackend(graph, threads=1)
    info = read_graph(graph)
    contract, fixed = info.contract, info.fixed
    memory = open_memory()
    assert isinstance(memory, BindingsMemory)
    work = HostWork(reference)
    runner = Runner(memory, *face_tensors(contract, (2, 128, 160)), work.plan)
    backend = GpuBackend("rehearsal", contract, fixed, runner)
    sizes = [(1, 64, 64), (2, 128, 160), (1, 128, 96)]
    backend.warmup(sizes)
    found["plans after warm-up"] = work.plans
    calls()

    same = []
    for seed, size in enumerate(sizes * 2):
        arrays = pictures(*size, seed)
        same.append(bool(np.array_equal(backend.run(*arrays), reference.run(*arrays))))
    found["same bytes"] = same
    found["hot loop"] = calls()
    found["plans"] = work.plans

    arrays = pictures(1, 64, 64, 9)
    on_device = [OnDevice(array) for array in arrays]
    calls()
    result = backend.run_on_device(*on_device)
    facts = result.__cuda_array_interface__
    pointer = (ctypes.c_uint8 * result.tensor.nbytes).from_address(facts["data"][0])
    array = np.ctypeslib.as_array(pointer).reshape(facts["shape"])
    found["same on device"] = bool(np.array_equal(array, reference.run(*arrays)))
    found["on device"] = calls()
    on_device[0].__cuda_array_interface__["stream"] = 7
    backend.run_on_device(*on_device)
    found["behind the caller's stream"] = calls()

    results: list[bool] = []

    def many(thread: int) -> None:
        for number in range(5):
            arrays = pictures(*sizes[(thread + number) % 3], 100 * thread + number)
            results.append(bool(np.array_equal(backend.run(*arrays), reference.run(*arrays))))

    threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found["same from threads"] = list(results)

    with pytest.raises(ValueError, match="with __cuda_array_interface__"):
        backend.run_on_device(*arrays)
    with pytest.raises(CudaError, match="larger than the buffers"):
        backend.run(*pictures(4, 128, 160, 1))
    use_primary_context()
    with pytest.raises(CudaError, match="cuMemAlloc failed with CUDA_ERROR_OUT_OF_MEMORY"):
        memory.device(2 << 30)
    with pytest.raises(CudaError, match="cuMemcpyHtoDAsync failed with CUDA_ERROR_INVALID_VALUE"):
        # Not pinned: a copy that would wait.
        memory.copy_in(memory.device(64), np.zeros(64, dtype=np.uint8))
    calls()
    for number in range(9):
        backend.warmup([(1, 64, 64 + 16 * number)])
    found["graphs freed"] = calls().count("cuGraphExecDestroy")
    backend.close()
    closing = calls()
    with pytest.raises(GraphError, match="rehearsal: the backend is closed"):
        backend.run(*arrays)
    found["freed"] = {name: closing.count(name) for name in ("cuMemFree", "cuMemFreeHost", "cuStreamDestroy")}

    # Dropped, not closed. A result on the device keeps the memory that it lies in.
    backend = GpuBackend(
        "rehearsal", contract, fixed, Runner(open_memory(), *face_tensors(contract, sizes[0]), work.plan)
    )
    on_device = [OnDevice(array) for array in arrays]
    result = backend.run_on_device(*on_device)
    calls()
    del backend
    gc.collect()
    found["freed while a result is held"] = calls()
    del result
    gc.collect()
    closing = calls()
    found["freed when dropped"] = {name: closing.count(name) for name in found["freed"]}

    # Work that fails while it is captured: the stream must be usable afterwards.
    memory = open_memory()

    def failing(tensors: Sequence[Tensor], addresses: Mapping[str, int]) -> Enqueue:
        enqueue = work.plan(tensors, addresses)
        runs = []

        def once(stream: int) -> None:
            runs.append(stream)
            if len(runs) == 2:
                raise CudaError("planted")
            enqueue(stream)

        return once

    backend = GpuBackend("rehearsal", contract, fixed, Runner(memory, *face_tensors(contract, (1, 64, 64)), failing))
    arrays = pictures(1, 64, 64, 3)
    with pytest.raises(CudaError, match="planted"):
        backend.run(*arrays)
    with memory.entered():
        memory.synchronise()
    backend.close()

    # Work that allocates while it is captured: no silent loss of the graph.
    memory = open_memory()

    def greedy(tensors: Sequence[Tensor], addresses: Mapping[str, int]) -> Enqueue:
        enqueue = work.plan(tensors, addresses)

        def allocating(stream: int) -> None:
            memory.device(64)
            enqueue(stream)

        return allocating

    backend = GpuBackend("rehearsal", contract, fixed, Runner(memory, *face_tensors(contract, (1, 64, 64)), greedy))
    with pytest.raises(CudaError, match="cuMemAlloc failed with CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"):
        backend.run(*arrays)
    backend.close()

    # PyCUDA in the place of cuda-bindings, as strict as it is with its own stack of contexts.
    sys.modules["pycuda"], sys.modules["pycuda.driver"] = pycuda_stand_in()
    memory = PyCudaMemory()
    backend = GpuBackend("PyCUDA", contract, fixed, Runner(memory, *face_tensors(contract, (2, 128, 160)), work.plan))
    same = [bool(np.array_equal(backend.run(*arrays), reference.run(*arrays)))]
    results.clear()
    thread = threading.Thread(target=many, args=(0,))
    thread.start()
    thread.join()
    found["same with PyCUDA"] = same + results
    calls()
    backend.close()
    closing = calls()
    found["freed by PyCUDA"] = {name: closing.count(name) for name in ("cuMemFree", "cuMemFreeHost", "cuStreamDestroy")}

    # ONNX Runtime's own binding to our addresses, with its CPU provider.
    memory = BindingsMemory()
    session = BoundSession(read_graph(graph), ("CPUExecutionProvider", {}), device="cpu")
    late: list[Any] = []

    def bound(tensors: Sequence[Tensor], addresses: Mapping[str, int]) -> Enqueue:
        enqueue = session.plan(tensors, addresses)
        function = _HOST_FUNCTION(lambda _data: enqueue(0))
        late.append(function)
        address = ctypes.cast(function, ctypes.c_void_p).value
        return lambda stream: call("cuLaunchHostFunc", handle("CUstream", stream), handle("CUhostFn", address), 0)

    runner = Runner(memory, *face_tensors(contract, (2, 128, 160)), bound, capture=False)
    backend = GpuBackend("bound", contract, fixed, runner)
    same = []
    for seed, size in enumerate(sizes):
        backend.warmup([size])
        calls()
        arrays = pictures(*size, seed)
        same.append(bool(np.array_equal(backend.run(*arrays), reference.run(*arrays))))
    found["same when bound"] = same
    found["hot loop without capture"] = calls()
    backend.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
