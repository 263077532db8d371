"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from cisi_runtime.backends.base import Backend
from cisi_runtime.contract import METADATA_KEY, Contract
from cisi_runtime.errors import ContractError, GraphError

_PROVIDER = "CPUExecutionProvider"
# 3 = errors only: warnings of the graph optimiser are not for the people who run a graph.
_LOG_ERRORS = 3
# Its exceptions share no base class but Exception.
_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
)


class OnnxRuntimeBackend(Backend):
    """An ONNX file of ours in ONNX Runtime's CPU provider.

    graph: a path, or the bytes of a model. threads: 0 leaves the number to ONNX Runtime (all cores). optimise=False is
    ORT_DISABLE_ALL, the oracle of parity checks. Raises GraphError for what is not a graph and for a float16 one,
    ContractError for a graph without our contract or whose inputs are not what the contract says.
    """

    def __init__(self, graph: Path | bytes, *, threads: int = 0, optimise: bool = True) -> None:
        label = "the graph" if isinstance(graph, bytes) else str(graph)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _LOG_ERRORS
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if isinstance(graph, Path) and not graph.is_file():
            raise GraphError(f"{graph}: no such file")
        source = graph if isinstance(graph, bytes) else str(graph)
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=[_PROVIDER])
        except _ERRORS as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise GraphError(f"{label}: ONNX Runtime cannot load it, expected an ONNX graph: {reason}") from error
        if self._session.get_providers() != [_PROVIDER]:
            raise GraphError(f"{label}: asked for {_PROVIDER}, got {self._session.get_providers()}")
        contract = _contract_of(self._session, label)
        if contract.precision == "float16":
            raise GraphError(
                f"{label}: is float16, which ONNX Runtime's CPU kernels would run in float32 without a word, "
                "expected a float32 or int8 graph"
            )
        super().__init__("onnxruntime", contract)

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        try:
            completed = self._session.run([self.contract.output], inputs)[0]
        except (*_ERRORS, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise GraphError(f"ONNX Runtime failed on an image of shape {image.shape}: {reason}") from error
        return np.asarray(completed)


def _contract_of(session: onnxruntime.InferenceSession, label: str) -> Contract:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        raise ContractError(f"{label}: has no CISI-net contract, expected a graph written by cisi-export")
    try:
        contract = Contract.from_json(text)
    except ContractError as error:
        raise ContractError(f"{label}: {error}") from error
    kind = "tensor(uint8)" if contract.face == "uint8" else "tensor(float)"
    expected = dict.fromkeys((*contract.inputs, contract.output), kind)
    found = {node.name: node.type for node in (*session.get_inputs(), *session.get_outputs())}
    if found != expected:
        raise ContractError(f"{label}: inputs and outputs are {found}, expected {expected} by its contract")
    return contract
