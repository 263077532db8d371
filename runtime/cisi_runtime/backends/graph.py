"""An ONNX graph of ours opened once: its contract, its sizes, its types."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from cisi_runtime.backends.base import FixedShape
from cisi_runtime.backends.cores import available_cores, container_cores, cores_are_shared
from cisi_runtime.backends.graph_file import GraphContents, check_attributes, read_contents
from cisi_runtime.contract import METADATA_KEY, Contract
from cisi_runtime.errors import ContractError, GraphError

CPU_PROVIDER = "CPUExecutionProvider"
# At once, of a graph that is for one size or batch: 128 times what `cisi-export` writes. Golden cases are made of it.
_MAX_PIXELS = 1 << 27
# 3 = errors only. Warnings of the graph optimiser are for its developers.
LOG_ERRORS_ONLY = 3
# ONNX Runtime's exceptions share no base class but Exception.
ORT_ERRORS = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    # Its messages quote the file, where a name of a side, say, may be no text.
    UnicodeDecodeError,
)


@dataclasses.dataclass(frozen=True)
class GraphInfo:
    """What a graph says of itself.

    source: its file, or its bytes.
    label: how messages name it.
    contract: from its metadata.
    fixed: the batch, height and width that it was exported for.
    metadata: the model's, by key.
    """

    source: Path | bytes
    label: str
    contract: Contract
    fixed: FixedShape
    metadata: dict[str, str]

    def serialised(self) -> bytes:
        """The bytes of the model."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


def read_graph(graph: Path | bytes | GraphInfo) -> GraphInfo:
    """Open a graph of any precision once and read what it says. What has been read already is returned.

    Raises GraphError for what is not an ONNX graph or not safe to load (see `read_contents`), ContractError for one
    without our contract, or which is not what its contract says.
    """
    return graph if isinstance(graph, GraphInfo) else open_graph(graph, threads=1, optimise=False)[1]


def open_graph(graph: Path | bytes, *, threads: int, optimise: bool) -> tuple[onnxruntime.InferenceSession, GraphInfo]:
    """A session on the CPU provider alone, and what its graph says.

    threads: 0 leaves the number to ONNX Runtime. optimise: False for no graph optimisations. Raises as `read_graph`.
    """
    data, label = _bytes_of(graph), _label(graph)
    # Before ONNX Runtime sees the file.
    contents = read_contents(data, label)
    contract = _contract(contents, label)
    session = _session(data, label, threads=threads, optimise=optimise)
    return session, GraphInfo(graph, label, contract, _fixed_shape(session, contract, label), contents.metadata)


def _contract(contents: GraphContents, label: str) -> Contract:
    text = contents.metadata.get(METADATA_KEY)
    if text is None:
        raise ContractError(f"{label}: has no CISI-net contract, expected a graph written by cisi-export")
    try:
        contract = Contract.from_json(text)
    except ContractError as error:
        raise ContractError(f"{label}: {error}") from error
    check_attributes(contents, contract.architecture, label)
    faults = contents.faults(contract)
    if faults:
        raise ContractError(f"{label}: {'; '.join(faults)}")
    return contract


def _fixed_shape(session: onnxruntime.InferenceSession, contract: Contract, label: str) -> FixedShape:
    expected = dict.fromkeys((*contract.inputs, contract.output), contract.io.onnx_type)
    try:
        inputs = {node.name: list(node.shape) for node in session.get_inputs()}
        actual = {node.name: node.type for node in (*session.get_inputs(), *session.get_outputs())}
    except UnicodeDecodeError as error:
        raise GraphError(f"{label}: a side of an input has a name that is no text") from error
    if actual != expected:
        raise ContractError(f"{label}: inputs and outputs are {actual}, expected {expected} by its contract")
    shape = inputs[contract.inputs[0]]
    if len(shape) != len(contract.io.input_shapes((1, 1, 1))[contract.inputs[0]]):
        raise ContractError(f"{label}: {contract.inputs[0]} has the shape {shape}, expected four sides")
    # Free dimensions have names instead of numbers.
    of_each = [
        tuple(sides[axis] if isinstance(sides[axis], int) else None for axis in contract.io.axes)
        for sides in (inputs[name] for name in contract.inputs)
    ]
    if of_each[0] != of_each[1]:
        raise ContractError(f"{label}: its inputs are of different sizes: {inputs}")
    batch, *sides = of_each[0]
    fixed = FixedShape(batch, *sides)
    multiple, smallest = contract.size_multiple, contract.min_size
    if any(side is not None and (side % multiple or side < smallest) for side in sides) or batch == 0:
        raise ContractError(
            f"{label}: takes {fixed}, expected at least one picture, and sides that are multiples of {multiple}, "
            f"{smallest} or more"
        )
    if (batch or 1) * math.prod(side or smallest for side in sides) > _MAX_PIXELS:
        raise ContractError(f"{label}: takes {fixed}, expected at most {_MAX_PIXELS} pixels at once")
    return fixed


def open_session(model: bytes, *, threads: int = 0, optimise: bool = False) -> onnxruntime.InferenceSession:
    """A session for any model of known operators, on the CPU provider alone. Raises GraphError."""
    read_contents(model, "the graph")
    return _session(model, "the graph", threads=threads, optimise=optimise)


def _session(data: bytes, label: str, *, threads: int, optimise: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or (available_cores() if container_cores() else 0)
    options.log_severity_level = LOG_ERRORS_ONLY
    if cores_are_shared():
        # By default idle threads spin, so that the next operator or call begins sooner. `cisi-serve` answers 1.2 times
        # as many requests without that (2 cores, 16 clients, 1 megapixel).
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # With a fallback it would print that it falls back to the provider that it was asked for.
        session = onnxruntime.InferenceSession(data, options, providers=[CPU_PROVIDER], enable_fallback=0)
    except ORT_ERRORS as error:
        raise GraphError(
            f"{label}: ONNX Runtime cannot load it, expected an ONNX graph: {first_line(error)}"
        ) from error
    if session.get_providers() != [CPU_PROVIDER]:
        raise GraphError(f"{label}: asked for {CPU_PROVIDER}, got {session.get_providers()}")
    return session


def _bytes_of(graph: Path | bytes) -> bytes:
    if isinstance(graph, bytes):
        return graph
    try:
        if not graph.is_file():
            raise GraphError(f"{graph}: no such file")
        return graph.read_bytes()
    except OSError as error:
        raise GraphError(f"{graph}: cannot be read: {error.strerror or error}") from error


def first_line(error: BaseException) -> str:
    """The first line of a library's exception."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _label(graph: Path | bytes) -> str:
    return "the graph" if isinstance(graph, bytes) else str(graph)
