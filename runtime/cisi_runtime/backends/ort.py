"""ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.contract import METADATA_KEY, Contract
from cisi_runtime.errors import ContractError, GraphError

_PROVIDER = "CPUExecutionProvider"
# 3 = errors only: warnings of the graph optimiser are not for the people who run a graph.
_LOG_ERRORS = 3
# Its exceptions share no base class but Exception.
ORT_ERRORS = (
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
    ORT_DISABLE_ALL, the oracle of parity checks. Raises GraphError for what is not a graph or holds float16,
    ContractError for a graph without our contract or whose inputs are not what the contract says.
    """

    def __init__(self, graph: Path | bytes, *, threads: int = 0, optimise: bool = True) -> None:
        label = _label(graph)
        self._session = _open(graph, threads, optimise=optimise)
        contract = _contract_of(self._session, label)
        if holds_float16(contract):
            raise GraphError(
                f"{label}: holds float16, which ONNX Runtime's CPU kernels would run in float32 without a word, "
                "expected a float32 graph, or an int8 graph for CPUs"
            )
        super().__init__("onnxruntime", contract, _fixed_shape(self._session, contract))

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        try:
            completed = self._session.run([self.contract.output], inputs)[0]
        except (*ORT_ERRORS, MemoryError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise GraphError(f"ONNX Runtime failed on an image of shape {image.shape}: {reason}") from error
        return np.asarray(completed)


def holds_float16(contract: Contract) -> bool:
    """Whether a graph computes in float16: a float16 one, and an INT8 one for TensorRT where it is not INT8."""
    return contract.precision == "float16" or (contract.precision, contract.target) == ("int8", "tensorrt")


def graph_contract(graph: Path | bytes) -> Contract:
    """The contract of a graph of any precision. Raises as `OnnxRuntimeBackend`, but not for float16."""
    return _contract_of(_open(graph, 1, optimise=False), _label(graph))


def fixed_shape(graph: Path | bytes) -> FixedShape:
    """What sizes a graph of any precision takes. Raises as `graph_contract`."""
    session = _open(graph, 1, optimise=False)
    return _fixed_shape(session, _contract_of(session, _label(graph)))


def _label(graph: Path | bytes) -> str:
    return "the graph" if isinstance(graph, bytes) else str(graph)


def _open(graph: Path | bytes, threads: int, *, optimise: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _LOG_ERRORS
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if isinstance(graph, Path) and not graph.is_file():
        raise GraphError(f"{graph}: no such file")
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        session = onnxruntime.InferenceSession(source, options, providers=[_PROVIDER])
    except ORT_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GraphError(f"{_label(graph)}: ONNX Runtime cannot load it, expected an ONNX graph: {reason}") from error
    if session.get_providers() != [_PROVIDER]:
        raise GraphError(f"{_label(graph)}: asked for {_PROVIDER}, got {session.get_providers()}")
    return session


def _fixed_shape(session: onnxruntime.InferenceSession, contract: Contract) -> FixedShape:
    """Batch, height and width as the graph's image input declares them; names of dimensions are free ones."""
    shape = next(node.shape for node in session.get_inputs() if node.name == contract.inputs[0])
    batch, height, width = shape[:3] if contract.face == "uint8" else (shape[0], *shape[2:])
    return FixedShape(*(side if isinstance(side, int) else None for side in (batch, height, width)))


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
