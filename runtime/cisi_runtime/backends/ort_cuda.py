"""ONNX Runtime on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnxruntime

from cisi_runtime.backends.base import FixedShape
from cisi_runtime.backends.gpu import GpuBackend, face_tensors
from cisi_runtime.backends.graph import LOG_ERRORS_ONLY, ORT_ERRORS, GraphInfo, first_line, read_graph
from cisi_runtime.cuda.memory import Memory, open_memory
from cisi_runtime.cuda.runner import Enqueue, Runner, Tensor
from cisi_runtime.errors import CudaError, GraphError
from cisi_runtime.face import BatchSize

_PROVIDER = "CUDAExecutionProvider"


class OnnxRuntimeCudaBackend(GpuBackend):
    """An ONNX graph of ours in ONNX Runtime's CUDA provider, on our stream and buffers. No node may fall back to the
    CPU.

    The provider captures a CUDA graph of its own for each shape and thread, so a single thread of ours calls it. Our
    copies go into the same stream.

    graph: a path, or what `read_graph` read; any precision, float16 included.
    largest: batch, height and width that buffers are made for.

    Raises GraphError and ContractError as `OnnxRuntimeBackend`, and CudaError.
    """

    def __init__(
        self, graph: Path | GraphInfo, *, largest: BatchSize = (16, 512, 512), memory: Memory | None = None
    ) -> None:
        info = read_graph(graph)
        if _PROVIDER not in onnxruntime.get_available_providers():
            raise CudaError(
                f"ONNX Runtime {onnxruntime.__version__} here has no {_PROVIDER}: pip "
                "install 'cisi-net[gpu]' instead of [cpu]: both own the module onnxruntime"
            )
        # NVIDIA's wheels put the CUDA and cuDNN libraries where no loader looks.
        onnxruntime.preload_dlls()
        memory = memory or open_memory()
        # Options of the page "CUDA Execution Provider" of onnxruntime.ai. TF32 is off: types are those of the graph.
        options = {
            "device_id": "0",
            "user_compute_stream": str(memory.stream),
            "enable_cuda_graph": "1",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "use_tf32": "0",
        }
        try:
            work = BoundSession(info, (_PROVIDER, options), device="cuda")
        except BaseException:
            memory.close()
            raise
        runner = Runner(memory, *face_tensors(info.contract, _largest(info.fixed, largest)), work.plan, capture=False)
        super().__init__("onnxruntime CUDA", info.contract, info.fixed, runner)


class BoundSession:
    """A session whose inputs and outputs are bound to addresses. device: "cuda", or "cpu" for rehearsals."""

    def __init__(self, info: GraphInfo, provider: tuple[str, dict[str, str]], *, device: str) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        source = info.source if isinstance(info.source, bytes) else str(info.source)
        if device != "cpu":
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=[provider], enable_fallback=0)
        except ORT_ERRORS as error:
            raise GraphError(
                f"{info.label}: {provider[0]} cannot load it, or its CUDA and cuDNN libraries are missing, expected an "
                f"installation with pip install 'cisi-net[gpu]': {first_line(error)}"
            ) from error
        providers = self._session.get_providers()
        if providers[0] != provider[0]:
            raise GraphError(f"{info.label}: asked for {provider[0]}, got {providers}")
        self._device = device
        self._input_names = [node.name for node in self._session.get_inputs()]
        # Numbers of the provider's captured graphs, one for each shape. They live as long as the session.
        self._graph_ids: dict[tuple[Tensor, ...], int] = {}
        self._thread = ThreadPoolExecutor(max_workers=1)

    def plan(self, tensors: Sequence[Tensor], addresses: Mapping[str, int]) -> Enqueue:
        """Bind the tensors of one shape to their addresses."""
        binding = self._session.io_binding()
        for tensor in tensors:
            bind = binding.bind_input if tensor.name in self._input_names else binding.bind_output
            bind(tensor.name, self._device, 0, tensor.dtype, tensor.shape, addresses[tensor.name])
        options = onnxruntime.RunOptions()
        if self._device != "cpu":
            graph_id = self._graph_ids.setdefault(tuple(tensors), 1 + len(self._graph_ids))
            options.add_run_config_entry("gpu_graph_id", str(graph_id))
            # The provider need not wait at the end: the runner waits once, after the copies.
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def enqueue(_stream: int) -> None:
            try:
                self._thread.submit(self._session.run_with_iobinding, binding, options).result()
            except ORT_ERRORS as error:
                raise GraphError(f"ONNX Runtime failed: {first_line(error)}") from error

        return enqueue


def _largest(fixed: FixedShape, free: BatchSize) -> BatchSize:
    """The graph's own batch, height and width where it has them, elsewhere those of `free`."""
    batch, height, width = (side or other for side, other in zip(fixed.sides, free, strict=True))
    return batch, height, width
