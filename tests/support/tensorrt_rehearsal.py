"""Run by tests with a stand-in for the CUDA driver and a module in the place of TensorRT-RTX, whose engines are ONNX
Runtime on the CPU: `TensorRtBackend` and `make_engine` as on a machine with a card. Prints what it found as JSON."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.building.cache import write_engine
from cisi_runtime.building.make import make_engine
from cisi_runtime.cuda.runner import Tensor
from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.engines.sidecar import load_engine
from cisi_runtime.errors import CudaError, EngineError, ParityError
from tests.support.cuda_rehearsal import HostWork, pictures

STATE: dict[str, Any] = {"contexts": 0, "brighter": 0, "refuse": False, "not capturable": False}
STATE |= {"cache": b"", "given": []}


class Context:
    def __init__(self) -> None:
        STATE["contexts"] += 1
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._enqueue: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if name == "image":
            self._shape = tuple(shape)
        return not STATE["refuse"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def set_device_memory(self, address: int, size: int) -> None:
        assert size >= 1000
        assert address

    def is_stream_capturable(self, stream: int) -> bool:
        return bool(stream) and not STATE["not capturable"]

    def infer_shapes(self) -> list[str]:
        return []

    def execute_async_v3(self, stream: int) -> bool:
        if self._enqueue is None:
            pixels = np.dtype(np.uint8)
            tensors = [Tensor("image", self._shape, pixels), Tensor("hole_mask", self._shape[:3], pixels)]
            self._enqueue = WORK.plan([*tensors, Tensor("completed", self._shape, pixels)], self._addresses)
            STATE["cache"] += b"kernel"
        self._enqueue(stream)
        return True


class Cache:
    def serialize(self) -> bytes:
        return bytes(STATE["cache"])

    def deserialize(self, blob: bytes) -> bool:
        STATE["given"].append(blob)
        return True


class Config:
    dynamic_shapes_kernel_specialization_strategy: Any = None

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, _cache: Cache) -> bool:
        return True

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy


class Engine:
    def create_runtime_config(self) -> Config:
        return Config()

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        assert profile == 0
        return 1000

    def create_execution_context(self, config: Config) -> Context:
        assert config.strategy == "user managed"
        assert config.dynamic_shapes_kernel_specialization_strategy == "eager"
        return Context()


class Brighter(OnnxRuntimeBackend):
    """Another network, when asked to be."""

    def _run(self, image: Any, hole_mask: Any) -> Any:
        completed = super()._run(image, hole_mask)
        wrong = np.clip(completed.astype(int) + STATE["brighter"], 0, 255).astype(np.uint8)
        return np.where((hole_mask >= 128)[..., None], wrong, completed)


def stand_in_module() -> types.ModuleType:
    class Logger:
        ERROR, INTERNAL_ERROR = 1, 0

    class Runtime:
        def __init__(self, _log: object) -> None: ...

        def deserialize_cuda_engine(self, _engine: bytes) -> Engine:
            return Engine()

    module = types.ModuleType("tensorrt_rtx")
    module.ILogger, module.Runtime = Logger, Runtime  # type: ignore[attr-defined]
    module.DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(EAGER="eager")  # type: ignore[attr-defined]
    module.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="user managed")  # type: ignore[attr-defined]
    return module


def message(function: Any, *arguments: Any) -> str:
    try:
        function(*arguments)
    except (CudaError, EngineError, ParityError, ValueError) as error:
        return str(error)
    return "no error"


def main(graph: Path, engine: Path) -> None:
    from cisi_runtime.backends.tensorrt import TensorRtBackend

    found: dict[str, Any] = {}
    made = make_engine(graph, engine, BuildOptions())
    found["from cache"], found["parity"] = made.from_cache, made.sidecar.parity
    assert load_engine(engine)[1] == made.sidecar

    STATE["contexts"] = 0
    backend = TensorRtBackend.open(engine)
    cache = engine.with_name(engine.name + ".runtime")
    sizes = [(1, 64, 64), (2, 128, 160), (1, 64, 96), (1, 64, 64)]
    same = []
    for seed, size in enumerate(sizes):
        arrays = pictures(*size, seed)
        same.append(bool(np.array_equal(backend.run(*arrays), REFERENCE.run(*arrays))))
    found["same bytes"], found["contexts"] = same, STATE["contexts"]
    kept = cache.read_bytes()
    found["too large"] = message(backend.run, *pictures(1, 512, 1024, 0))
    backend.close()
    again = TensorRtBackend.open(engine)
    found["runtime cache"] = [kept == STATE["cache"], STATE["given"][-1] == kept]
    STATE["refuse"] = True
    found["refused shape"] = message(again.run, *pictures(1, 64, 64, 0))
    STATE["refuse"] = False
    STATE["not capturable"] = True
    found["not capturable"] = message(again.run, *pictures(1, 64, 64, 0))
    STATE["not capturable"] = False
    again.close()

    cache.unlink()
    cache.mkdir()
    unkept = TensorRtBackend.open(engine)
    found["without a cache"] = bool(np.array_equal(unkept.run(*arrays), REFERENCE.run(*arrays)))
    unkept.close()

    STATE["brighter"] = 20
    folder = engine.parent / "planted"
    folder.mkdir()
    found["planted fault"] = message(make_engine, graph, folder / "bad.engine", BuildOptions())
    found["left by the fault"] = [path.name for path in folder.iterdir()]

    data, sidecar = load_engine(engine)
    options = dataclasses.replace(sidecar.options, capabilities=("8.6",))
    other = folder / "other.engine"
    write_engine(other, data, dataclasses.replace(sidecar, options=options))
    found["wrong card"] = message(TensorRtBackend.open, other)
    print(json.dumps(found))


if __name__ == "__main__":
    sys.modules["tensorrt_rtx"] = stand_in_module()
    REFERENCE = OnnxRuntimeBackend(Path(sys.argv[3]), threads=1)
    WORK = HostWork(Brighter(Path(sys.argv[3]), threads=1))
    assert ctypes.sizeof(ctypes.c_void_p) == 8
    main(Path(sys.argv[1]), Path(sys.argv[2]))
