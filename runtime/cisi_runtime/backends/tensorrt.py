"""Engines in TensorRT or TensorRT-RTX."""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cisi_runtime.backends.base import FixedShape
from cisi_runtime.backends.gpu import GpuBackend, face_tensors
from cisi_runtime.console import tell
from cisi_runtime.cuda.driver import find_gpu
from cisi_runtime.cuda.memory import Memory, open_memory
from cisi_runtime.cuda.runner import Enqueue, Runner, Tensor
from cisi_runtime.engines.compatibility import check_gpu, check_installation
from cisi_runtime.engines.options import FLAVOURS, Profile, Size
from cisi_runtime.engines.sidecar import Sidecar, load_engine
from cisi_runtime.errors import CudaError, EngineError, OutputError
from cisi_runtime.face import BatchSize
from cisi_runtime.files import atomic_file


@dataclasses.dataclass(frozen=True)
class EngineShape(FixedShape):
    """What an engine takes: what its graph takes, within the optimisation profile."""

    profile: Profile = dataclasses.field(default_factory=Profile)

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether the engine takes a batch, height and width: the first three of `shape`."""
        is_free = None in self.sides
        return super().accepts(shape) and (not is_free or self.profile.accepts(Size(*shape[:3])))

    def limits(self) -> tuple[BatchSize, BatchSize]:
        """Smallest and largest batch, height and width: the graph's, within the profile."""
        profile = self.profile.limited(self.sides)
        return profile.min.sides, profile.max.sides

    def __str__(self) -> str:
        if None not in self.sides:
            return super().__str__()
        return f"BATCHxWIDTHxHEIGHT {self.profile}"


class TensorRtBackend(GpuBackend):
    """An engine that `cisi-build` wrote, on the first GPU.

    Library, version and card are checked before a byte is deserialised.

    runtime_cache: file in which TensorRT-RTX keeps what it compiled for this card.

    Raises EngineError and CudaError.
    """

    def __init__(self, engine: bytes, sidecar: Sidecar, *, runtime_cache: Path | None = None) -> None:
        check_installation(sidecar)
        check_gpu(sidecar, find_gpu())
        memory = open_memory()
        try:
            with memory.entered():
                loaded = _Engine(engine, sidecar, runtime_cache, memory)
        except BaseException:
            memory.close()
            raise
        fixed = EngineShape(*sidecar.fixed, profile=sidecar.options.profile)
        _, largest = fixed.limits()
        runner = Runner(memory, *face_tensors(sidecar.contract, largest), loaded.plan)
        super().__init__(f"{sidecar.options.flavour} {sidecar.version}", sidecar.contract, fixed, runner)

    @classmethod
    def open(cls, path: Path) -> TensorRtBackend:
        """Load an engine file with its sidecar. Raises as the class, naming the file."""
        engine, sidecar = load_engine(path)
        cache = path.with_name(path.name + ".runtime") if os.access(path.parent, os.W_OK) else None
        try:
            return cls(engine, sidecar, runtime_cache=cache)
        except (EngineError, CudaError) as error:
            raise type(error)(f"{path}: {error}") from error


class _Engine:
    """A deserialised engine. It makes an execution context for each shape, because a captured graph must stay valid
    while another shape runs."""

    def __init__(self, engine: bytes, sidecar: Sidecar, runtime_cache: Path | None, memory: Memory) -> None:
        self._stream = memory.stream
        self._trt: Any = importlib.import_module(FLAVOURS[sidecar.options.flavour][0])
        trt = self._trt

        class Log(trt.ILogger):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                super().__init__()
                self.errors: list[str] = []

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    self.errors.append(message)

        self._inputs = frozenset(sidecar.contract.inputs)
        self._log = Log()
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineError(f"{sidecar.options.flavour} cannot load it: {self._reason()}")
        self._is_rtx = sidecar.options.flavour == "tensorrt-rtx"
        self._cache_file = runtime_cache if self._is_rtx else None
        self._config: Any = None
        self._cache: Any = None
        if self._is_rtx:
            self._config, self._cache = self._runtime_config()
        # The contexts of all shapes share one piece of scratch memory: they never run at the same time.
        self._scratch_bytes = max(1, int(self._engine.get_device_memory_size_for_profile_v2(0)))
        self._scratch = memory.device(self._scratch_bytes)

    def plan(self, tensors: Sequence[Tensor], addresses: Mapping[str, int]) -> Enqueue:
        """A context for one shape, with static addresses."""
        self._log.errors.clear()
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(self._config if self._is_rtx else strategy)
        if context is None:
            raise CudaError(f"no execution context: {self._reason()}")
        context.set_device_memory(self._scratch, self._scratch_bytes)
        for tensor in tensors:
            if tensor.name in self._inputs and not context.set_input_shape(tensor.name, tensor.shape):
                raise CudaError(f"{tensor.name}: the engine refuses the shape {tensor.shape}: {self._reason()}")
            if not context.set_tensor_address(tensor.name, addresses[tensor.name]):
                raise CudaError(f"{tensor.name}: the engine refuses its address: {self._reason()}")
        missing = context.infer_shapes()
        if missing:
            raise CudaError(f"the engine has inputs that it was not given: {', '.join(missing)}")

        is_new = True

        def enqueue(stream: int) -> None:
            nonlocal is_new
            if not context.execute_async_v3(stream):
                raise CudaError(f"execute_async_v3 failed: {self._reason()}")
            # The first run compiles what is missing. Later runs may be captures, in which nothing else may be called.
            if is_new:
                is_new = False
                self._save_cache()
                if not context.is_stream_capturable(self._stream):
                    raise CudaError(f"the engine's work cannot be captured in a CUDA graph: {self._reason()}")

        return enqueue

    def _runtime_config(self) -> tuple[Any, Any]:
        """TensorRT-RTX compiles its kernels on the card. EAGER compiles them for each shape at once instead of later in
        the background, so that a captured graph holds the final ones; the cache keeps them."""
        config = self._engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        cache = config.create_runtime_cache()
        if self._cache_file is not None and self._cache_file.is_file():
            # Entries of another card or version are ignored and compiled again.
            cache.deserialize(self._cache_file.read_bytes())
        config.set_runtime_cache(cache)
        config.set_execution_context_allocation_strategy(self._trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        return config, cache

    def _save_cache(self) -> None:
        if self._cache is None or self._cache_file is None:
            return
        compiled = bytes(self._cache.serialize())
        if not self._cache_file.is_file() or self._cache_file.stat().st_size != len(compiled):
            try:
                with atomic_file(self._cache_file) as temporary:
                    temporary.write_bytes(compiled)
            except OutputError as error:  # the pictures do not depend on it
                tell(f"what was compiled for this card is not kept, and is compiled again next time: {error}")
                self._cache_file = None

    def _reason(self) -> str:
        return "; ".join(self._log.errors) or "no reason given"
