"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.graph import GraphInfo, first_line, read_graph
from cisi_runtime.errors import GraphError


class OpenVinoBackend(Backend):
    """An ONNX graph of ours in OpenVINO's CPU plug-in: convolutions with Q/DQ in INT8, everything else in float32.

    graph, threads and errors: as for `OnnxRuntimeBackend`. Calls from several threads take turns.
    """

    def __init__(self, graph: Path | bytes | GraphInfo, *, threads: int = 0) -> None:
        info = read_graph(graph)
        if info.contract.holds_float16:
            raise GraphError(f"{info.label}: holds float16, expected a float32 graph, or an int8 graph for CPUs")
        # Without the hint OpenVINO silently computes in bfloat16 where the CPU has it.
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        # There is one request, and it writes each result into the same memory.
        self._lock = threading.Lock()
        core = openvino.Core()
        try:
            model = core.read_model(info.source if isinstance(info.source, bytes) else str(info.source))
            self._request = core.compile_model(model, "CPU", config).create_infer_request()
        except RuntimeError as error:
            raise GraphError(f"{info.label}: OpenVINO cannot load it: {first_line(error)}") from error
        super().__init__("openvino", info.contract, info.fixed)

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        with self._lock:
            try:
                results = self._request.infer(inputs)
            except RuntimeError as error:
                raise GraphError(f"OpenVINO failed on an image of shape {image.shape}: {first_line(error)}") from error
            return np.array(results[self.contract.output])

    def _close(self) -> None:
        with self._lock:
            del self._request
