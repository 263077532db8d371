"""Run by tests with a stand-in for the CUDA driver (`cuda_stand_in.c`): the code that real cards run, with ONNX Runtime
on the CPU in the place of a kernel. Prints what it found as JSON."""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cisi_runtime.backends.gpu import GpuBackend, face_tensors
from cisi_runtime.backends.ort import OnnxRuntimeBackend, fixed_shape, graph_contract
from cisi_runtime.backends.ort_cuda import BoundSession
from cisi_runtime.cuda.driver import call, find_gpu, handle
from cisi_runtime.cuda.memory import BindingsMemory, open_memory
from cisi_runtime.cuda.runner import Enqueue, Runner, Tensor
from cisi_runtime.errors import CudaError

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


def main(graph: Path) -> None:
    found: dict[str, Any] = {"gpu": str(find_gpu())}
    reference = OnnxRuntimeBackend(graph, threads=1)
    contract, fixed = graph_contract(graph), fixed_shape(graph)
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
    found["same from threads"] = results

    with pytest.raises(ValueError, match="with __cuda_array_interface__"):
        backend.run_on_device(*arrays)
    with pytest.raises(CudaError, match="larger than the buffers"):
        backend.run(*pictures(4, 128, 160, 1))
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
    found["freed"] = {name: closing.count(name) for name in ("cuMemFree", "cuMemFreeHost", "cuStreamDestroy")}

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
    memory.synchronise()
    backend.close()

    # ONNX Runtime's own binding to our addresses, with its CPU provider.
    memory = open_memory()
    session = BoundSession(graph, ("CPUExecutionProvider", {}), device="cpu")
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
