"""OpenVINO on the CPU."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.ort import fixed_shape, graph_contract, holds_float16
from cisi_runtime.errors import GraphError


class OpenVinoBackend(Backend):
    """An ONNX file of ours in OpenVINO's CPU plug-in; convolutions with Q/DQ run in INT8, everything else in float32.

    graph, threads: as for `OnnxRuntimeBackend`. Raises as it does. Not for several threads at once: a request is
    reused.
    """

    def __init__(self, graph: Path | bytes, *, threads: int = 0) -> None:
        contract = graph_contract(graph)
        label = "the graph" if isinstance(graph, bytes) else str(graph)
        if holds_float16(contract):
            raise GraphError(f"{label}: holds float16, expected a float32 graph, or an int8 graph for CPUs")
        # Without the hint OpenVINO takes bfloat16 where the CPU has it: other numbers, and no word.
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        self._lock = threading.Lock()
        core = openvino.Core()
        try:
            model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
            self._request = core.compile_model(model, "CPU", config).create_infer_request()
        except RuntimeError as error:
            raise GraphError(f"{label}: OpenVINO cannot load it: {str(error).splitlines()[0]}") from error
        super().__init__("openvino", contract, fixed_shape(graph))

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        # One request, which writes the next result into the same memory.
        with self._lock:
            try:
                results = self._request.infer(inputs)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise GraphError(f"OpenVINO failed on an image of shape {image.shape}: {reason}") from error
            return np.array(results[self.contract.output])
