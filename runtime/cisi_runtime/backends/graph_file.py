"""What an ONNX file holds, read without onnx and before any library loads it.

A file from elsewhere could name data outside its folder, declare gigabytes in a few bytes, or loop without end. Graphs
of this project need none of that, so a file that has it is refused. Protocol buffers are a sequence of numbered fields
(protobuf.dev, "Encoding"); the numbers are those of onnx.proto.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

from cisi_runtime.architecture import Architecture
from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError

# The operators that the lowerings and their INT8 graphs consist of. BatchNormalization is not among them: an exporter
# that writes one has turned AdaIN into inference batch norm, which computes something else. Neither is any that loops,
# branches, draws random numbers, or makes a tensor of a size that it is told. What each node computes still grows with
# its inputs: a file can be made that takes much memory when it runs.
OPERATORS = frozenset(
    (
        *("Add", "AveragePool", "Cast", "Clip", "Concat", "Conv", "DepthToSpace", "DequantizeLinear", "Div"),
        *("Gather", "Gemm", "Greater", "GreaterOrEqual", "InstanceNormalization", "LessOrEqual", "Mul"),
        *("QuantizeLinear", "Reciprocal", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Round", "Slice", "Split"),
        *("Sqrt", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze", "Where"),
    )
)
_MODEL_GRAPH, _MODEL_METADATA, _MODEL_FUNCTIONS, _MODEL_TRAINING = 7, 14, 25, 20
_GRAPH_NODE, _GRAPH_INITIALISER, _GRAPH_SPARSE = 1, 5, 15
# Inputs, outputs, and what is said of other tensors; of each the name.
_GRAPH_VALUES, _VALUE_NAME = frozenset((11, 12, 13)), 1
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
# Inputs, outputs and the node's own name.
_NODE_NAMES = frozenset((1, 2, 3))
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 1, 3, 5, 8
# Attributes that hold graphs, sparse tensors, lists of tensors, or refer to a function's.
_ATTRIBUTE_OTHER = frozenset((6, 10, 11, 21, 22, 23))
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 2, 8, 9, 13, 14
_KEY, _VALUE = 1, 2
# Bytes of a number by ONNX's number of its type, for the types of our graphs: float, uint8, int8, int32, int64, bool,
# float16.
_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2}
FLOAT, FLOAT16, INT8, UINT8 = 1, 10, 3, 2
# Larger than any attribute of ours but a dilation and its padding: kernels, strides, axes, types.
_MAX_ATTRIBUTE = 64
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_LENGTHS = {_FIXED64: 8, _FIXED32: 4}
# From here on a number of 64 bits stands for a negative one.
_NEGATIVE = 1 << 63
# Of one of ours: some 500 nodes and 200 tensors.
_MAX_ITEMS = 20_000


@dataclasses.dataclass(frozen=True)
class GraphContents:
    """What an ONNX file holds.

    operators: how many nodes of each.
    weight_types: ONNX's numbers of the types of the tensors of four axes, which convolutions read, with their counts.
    metadata: the model's, by key.
    largest_attribute: of all whole numbers in attributes.
    casts: ONNX's numbers of the types that Cast nodes make, with their counts.
    """

    operators: collections.Counter[str]
    weight_types: collections.Counter[int]
    metadata: dict[str, str]
    largest_attribute: int
    casts: collections.Counter[int]

    def faults(self, contract: Contract) -> list[str]:
        """How what the file holds contradicts its contract, in words."""
        faults = []
        quantised = self.operators["QuantizeLinear"] > 0
        float16 = self.weight_types[FLOAT16] > 0
        if quantised != (contract.precision == "int8"):
            holds = "Q/DQ nodes" if quantised else "no Q/DQ node"
            faults.append(f"the contract says precision {contract.precision}, but the graph holds {holds}")
        if float16 and not contract.holds_float16:
            faults.append(f"the contract says precision {contract.precision}, but the graph holds float16 weights")
        if contract.precision == "float16" and not float16:
            faults.append("the contract says precision float16, but the graph holds no float16 weight")
        is_cpu = self.operators["InstanceNormalization"] > 0
        if is_cpu != (contract.target == "cpu"):
            norms = "InstanceNormalization nodes" if is_cpu else "norms written out"
            faults.append(f"the contract says target {contract.target}, but the graph has {norms}")
        # A detour through another type rounds, and ONNX Runtime's CPU kernels may not even show it.
        types = {FLOAT, FLOAT16, UINT8} if contract.holds_float16 else {FLOAT, UINT8}
        others = sorted(self.casts.keys() - types)
        if others:
            numbers = ", ".join(map(str, others))
            faults.append(
                f"the graph casts to ONNX's type {numbers}, which precision {contract.precision} does not have"
            )
        if self.casts[UINT8] > (contract.face == "uint8"):
            faults.append(f"the graph casts to uint8 more often than face {contract.face} does")
        return faults


def read_contents(data: bytes, label: str) -> GraphContents:
    """Read an ONNX file and check that it is safe to load: known operators, no data outside the file, no subgraph, no
    tensor larger than its bytes.

    label: begins messages. Raises GraphError.
    """
    try:
        return _model(memoryview(data))
    except _FaultError as fault:
        raise GraphError(f"{label}: {fault}, expected a graph of cisi-export") from fault


def check_attributes(contents: GraphContents, architecture: Architecture, label: str) -> None:
    """Raise GraphError for an attribute that no graph of this architecture has: padding of a million pixels would take
    gigabytes."""
    limit = max(_MAX_ATTRIBUTE, *architecture.dilations)
    if contents.largest_attribute > limit:
        raise GraphError(f"{label}: has an attribute of {contents.largest_attribute}, expected at most {limit}")


class _FaultError(Exception):
    """Why a file is refused, in words."""


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a message: an integer, or bytes.

    Fields of four or eight bytes are left out: nothing here has them, and readers ignore a known field of another kind.
    """
    place, end = 0, len(data)
    while place < end:
        key, place = _varint(data, place)
        kind = key & 7
        value: int | memoryview
        if kind == _VARINT:
            value, place = _varint(data, place)
        else:
            if kind == _BYTES:
                length, place = _varint(data, place)
            elif kind in _FIXED_LENGTHS:
                length = _FIXED_LENGTHS[kind]
            else:
                raise _FaultError("is not an ONNX file, or damaged")
            if length > end - place:
                raise _FaultError("is not an ONNX file, or cut off")
            value, place = data[place : place + length], place + length
        if kind in (_VARINT, _BYTES):
            yield key >> 3, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            raise _FaultError("is not an ONNX file, or cut off")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            # Readers keep 64 bits of what is longer.
            return value & (1 << 64) - 1, place
    raise _FaultError("is not an ONNX file, or damaged")


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise _FaultError("is not an ONNX file, or damaged")
    return value


def _text(value: int | memoryview) -> str:
    """A field of text. Raises _FaultError for what is not UTF-8: ONNX Runtime quotes names in its messages, which
    Python then cannot decode."""
    try:
        return str(_message(value), "utf-8")
    except UnicodeDecodeError as error:
        raise _FaultError("is not an ONNX file, or damaged") from error


def _integers(value: int | memoryview) -> Iterator[int]:
    """Of a repeated field, packed or not; negative ones as two's complement of 64 bits."""
    if isinstance(value, int):
        yield value
        return
    place = 0
    while place < len(value):
        number, place = _varint(value, place)
        yield number


def _model(data: memoryview) -> GraphContents:
    contents = GraphContents(collections.Counter(), collections.Counter(), {}, 0, collections.Counter())
    graphs = 0
    for number, value in _fields(data):
        if number == _MODEL_GRAPH:
            graphs += 1
            contents = _graph(_message(value), contents.metadata)
        elif number == _MODEL_METADATA:
            entry = {key: _text(text) for key, text in _fields(_message(value)) if key in (_KEY, _VALUE)}
            contents.metadata[entry.get(_KEY, "")] = entry.get(_VALUE, "")
        elif number in (_MODEL_FUNCTIONS, _MODEL_TRAINING):
            raise _FaultError("holds functions or training information")
    if graphs != 1:
        raise _FaultError("is not an ONNX file" if graphs == 0 else "holds several graphs")
    return contents


def _graph(data: memoryview, metadata: dict[str, str]) -> GraphContents:
    operators: collections.Counter[str] = collections.Counter()
    weight_types: collections.Counter[int] = collections.Counter()
    casts: collections.Counter[int] = collections.Counter()
    largest = 0
    for items, (number, value) in enumerate(_fields(data)):
        if items >= _MAX_ITEMS:
            raise _FaultError(f"holds more than {_MAX_ITEMS} nodes and tensors")
        if number == _GRAPH_NODE:
            operator, attributes = _node(_message(value))
            operators[operator] += 1
            largest = max(largest, *attributes.values(), 0)
            if operator == "Cast":
                casts[attributes.get("to", 0)] += 1
        elif number == _GRAPH_INITIALISER:
            kind, axes = _tensor(_message(value))
            weight_types[kind] += axes == 4
        elif number in _GRAPH_VALUES:
            for field, name in _fields(_message(value)):
                if field == _VALUE_NAME:
                    _text(name)
        elif number == _GRAPH_SPARSE:
            raise _FaultError("holds sparse tensors")
    return GraphContents(operators, weight_types, metadata, largest, casts)


def _node(data: memoryview) -> tuple[str, dict[str, int]]:
    """Its operator and the largest whole number of each attribute, by name."""
    operator, domain = "", ""
    attributes: dict[str, int] = {}
    for number, value in _fields(data):
        if number in _NODE_NAMES:
            _text(value)
        elif number == _NODE_OPERATOR:
            operator = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_ATTRIBUTE:
            name, largest = _attribute(_message(value))
            attributes[name] = max(largest, attributes.get(name, 0))
    if domain not in ("", "ai.onnx") or operator not in OPERATORS:
        raise _FaultError(f"holds the operator {domain + '.' if domain else ''}{operator[:40] or '(none)'}")
    return operator, attributes


def _attribute(data: memoryview) -> tuple[str, int]:
    """Its name and the largest whole number in it."""
    label, largest = "", 0
    for number, value in _fields(data):
        if number in _ATTRIBUTE_OTHER:
            raise _FaultError("holds a node with a subgraph, or with a list of tensors")
        if number == _ATTRIBUTE_NAME:
            label = _text(value)
        elif number in (_ATTRIBUTE_INT, _ATTRIBUTE_INTS):
            for item in _integers(value):
                # Negative ones are axes counted from the end.
                if largest < item < _NEGATIVE:
                    largest = item
        elif number == _ATTRIBUTE_TENSOR:
            _tensor(_message(value))
    return label, largest


def _tensor(data: memoryview) -> tuple[int, int]:
    """Type and number of axes, once it is known that its bytes are all there."""
    kind, count, axes, raw = 0, 1, 0, None
    for number, value in _fields(data):
        if number == _TENSOR_DIMS:
            for side in _integers(value):
                if side >= _NEGATIVE:
                    raise _FaultError("declares a tensor with a negative side")
                count, axes = count * side, axes + 1
                if count > len(data):
                    raise _FaultError(f"declares a tensor of {count:.0e} numbers or more in {len(data)} bytes")
        elif number == _TENSOR_TYPE:
            kind = value if isinstance(value, int) else 0
        elif number == _TENSOR_NAME:
            _text(value)
        elif number == _TENSOR_RAW:
            raw = len(_message(value))
        elif number == _TENSOR_EXTERNAL or (number == _TENSOR_LOCATION and value != 0):
            raise _FaultError("keeps tensors outside the file")
    if kind not in _ITEM_BYTES:
        raise _FaultError(f"holds a tensor of ONNX's type {kind}")
    if raw is not None and raw != count * _ITEM_BYTES[kind]:
        raise _FaultError(f"holds a tensor of {raw} bytes where its shape takes {count * _ITEM_BYTES[kind]}")
    return kind, axes
