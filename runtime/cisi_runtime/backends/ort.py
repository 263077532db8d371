"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.graph import ORT_ERRORS, GraphInfo, first_line, open_graph, open_session
from cisi_runtime.errors import GraphError


class OnnxRuntimeBackend(Backend):
    """An ONNX graph of ours in ONNX Runtime's CPU provider. Safe from several threads.

    graph: a path, the bytes of a model, or what `read_graph` read.
    threads: 0 leaves the number to ONNX Runtime, which takes all cores.
    optimise: False is ORT_DISABLE_ALL, the oracle of parity checks.

    Raises GraphError for what is not a graph or computes in float16, ContractError for a graph without our contract or
    whose inputs are not what the contract says.
    """

    def __init__(self, graph: Path | bytes | GraphInfo, *, threads: int = 0, optimise: bool = True) -> None:
        if isinstance(graph, GraphInfo):
            info, self._session = graph, open_session(graph.serialised(), threads=threads, optimise=optimise)
        else:
            self._session, info = open_graph(graph, threads=threads, optimise=optimise)
        if info.contract.holds_float16:
            raise GraphError(
                f"{info.label}: holds float16, which ONNX Runtime's CPU kernels would silently run in float32, "
                "expected a float32 graph, or an int8 graph for CPUs"
            )
        super().__init__("onnxruntime", info.contract, info.fixed)

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        try:
            completed = self._session.run([self.contract.output], inputs)[0]
        except (*ORT_ERRORS, MemoryError) as error:
            raise GraphError(f"ONNX Runtime failed on an image of shape {image.shape}: {first_line(error)}") from error
        return np.asarray(completed)

    def _close(self) -> None:
        del self._session
