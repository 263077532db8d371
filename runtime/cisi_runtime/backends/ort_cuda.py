"""ONNX Runtime on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnxruntime

from cisi_runtime.backends.base import FixedShape
from cisi_runtime.backends.gpu import GpuBackend, Sides, face_tensors
from cisi_runtime.backends.ort import ORT_ERRORS, fixed_shape, graph_contract
from cisi_runtime.cuda.memory import Memory, open_memory
from cisi_runtime.cuda.runner import Enqueue, Runner, Tensor
from cisi_runtime.errors import CudaError, GraphError

_PROVIDER = "CUDAExecutionProvider"
# 3 = errors only.
_LOG_ERRORS = 3


class OnnxRuntimeCudaBackend(GpuBackend):
    """An ONNX file of ours in ONNX Runtime's CUDA provider, on our stream and buffers.

    The provider captures its own CUDA graph for each shape and thread, so that one thread of ours calls it; our copies
    go into the same stream. largest: batch, height and width that buffers are made for. No node may fall back to
    the CPU. Raises GraphError and ContractError as `OnnxRuntimeBackend` (float16 is welcome here), and CudaError.
    """

    def __init__(self, graph: Path, *, largest: Sides = (16, 512, 512), memory: Memory | None = None) -> None:
        contract, fixed = graph_contract(graph), fixed_shape(graph)
        if _PROVIDER not in onnxruntime.get_available_providers():
            raise CudaError(
                f"ONNX Runtime {onnxruntime.__version__} here has no {_PROVIDER}, expected an installation with pip "
                "install 'cisi-net[gpu]' instead of [cpu]: both own the module onnxruntime"
            )
        # The CUDA and cuDNN libraries of NVIDIA's wheels, which lie where no loader looks.
        onnxruntime.preload_dlls()
        memory = memory or open_memory()
        # Stated in the page "CUDA Execution Provider" of onnxruntime.ai; TF32 off: types are those of the graph.
        options = {
            "device_id": "0",
            "user_compute_stream": str(memory.stream),
            "enable_cuda_graph": "1",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "use_tf32": "0",
        }
        work = BoundSession(graph, (_PROVIDER, options), device="cuda")
        sides = _largest(fixed, largest)
        runner = Runner(memory, *face_tensors(contract, sides), work.plan, capture=False)
        super().__init__("onnxruntime CUDA", contract, fixed, runner)


class BoundSession:
    """A session whose inputs and outputs are bound to addresses; `device`: "cuda", or "cpu" for rehearsals."""

    def __init__(self, graph: Path, provider: tuple[str, dict[str, str]], *, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_ERRORS
        if device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self._session = onnxruntime.InferenceSession(str(graph), options, providers=[provider], enable_fallback=0)
        except ORT_ERRORS as error:
            raise GraphError(
                f"{graph}: {provider[0]} cannot load it, or its CUDA and cuDNN libraries are missing, expected an "
                f"installation with pip install 'cisi-net[gpu]': {str(error).splitlines()[0]}"
            ) from error
        found = self._session.get_providers()
        if found[0] != provider[0]:
            raise GraphError(f"{graph}: asked for {provider[0]}, got {found}")
        self._device = device
        self._input_names = [node.name for node in self._session.get_inputs()]
        # A captured graph for each shape; it lives as long as the session.
        self._numbers: dict[tuple[Tensor, ...], int] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)

    def plan(self, tensors: Sequence[Tensor], addresses: Mapping[str, int]) -> Enqueue:
        """Bind one shape."""
        binding = self._session.io_binding()
        for tensor in tensors:
            bind = binding.bind_input if tensor.name in self._input_names else binding.bind_output
            bind(tensor.name, self._device, 0, tensor.dtype, tensor.shape, addresses[tensor.name])
        options = onnxruntime.RunOptions()
        if self._device != "cpu":
            number = self._numbers.setdefault(tuple(tensors), 1 + len(self._numbers))
            options.add_run_config_entry("gpu_graph_id", str(number))
            # No wait at the end, as far as the provider honours it: the runner waits once, after the copies.
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def enqueue(_stream: int) -> None:
            try:
                self._thread.submit(self._session.run_with_iobinding, binding, options).result()
            except ORT_ERRORS as error:
                raise GraphError(f"ONNX Runtime failed: {str(error).splitlines()[0]}") from error

        return enqueue


def _largest(fixed: FixedShape, free: Sides) -> Sides:
    own: tuple[Any, ...] = (fixed.batch, fixed.height, fixed.width)
    batch, height, width = (side or other for side, other in zip(own, free, strict=True))
    return batch, height, width
