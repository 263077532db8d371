"""Which types a graph's tensors must have, and how its INT8 tensors must be scaled, node by node. Rounding changes none
of it, so there is no tolerance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from cisi_calibration.model_contract import contract_of, ranges_of
from cisi_calibration.table import RangeTable, parse_table
from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError

# What may be float16. Statistics, masked pooling, style path, codec and composite are other operators.
_FLOAT16_OPERATORS = frozenset(("Add", "Cast", "Conv", "DepthToSpace", "Relu"))
# Float32 arithmetic on the way from a range to a scale: some units in the last place.
_SAME_SCALE = 1e-5
_SYMMETRIC_LEVELS = 127
Array = npt.NDArray[Any]


def plan_faults(model: ModelProto) -> list[str]:
    """Where a graph's types, or its Q/DQ nodes, are not what its contract promises, in words."""
    contract = contract_of(model)
    faults = _type_faults(model, contract) if contract.holds_float16 else []
    return faults + _pair_faults(model)


def scale_faults(model: ModelProto, table: RangeTable) -> list[str]:
    """Where the scales and zero points of an INT8 graph's activations are not those of its range table, in words."""
    arrays = _arrays(model)
    symmetric = contract_of(model).target == "tensorrt"
    faults = []
    for name, tensor, node in _quantised_activations(model):
        entry = table.ranges.get(tensor)
        if entry is None:
            faults.append(f"{name}: the range table has no {tensor}")
            continue
        scale, zero_point = arrays[node.input[1]], arrays[node.input[2]]
        if symmetric:
            right, right_zero = entry.int8 / _SYMMETRIC_LEVELS, 0
        else:
            lowest, highest = entry.uint8
            right = (highest - lowest) / 255
            right_zero = round(-lowest / right) if right > 0.0 else 0
        if scale.size != 1 or (right > 0.0 and abs(float(scale) / right - 1.0) > _SAME_SCALE):
            faults.append(f"{tensor}: the scale is {scale.ravel()[0]:.6g}, expected {right:.6g} by the range table")
        elif int(zero_point) != right_zero:
            faults.append(f"{tensor}: the zero point is {int(zero_point)}, expected {right_zero} by the range table")
    return faults


def serialised_plan_faults(serialised: bytes) -> list[str]:
    """`plan_faults` and, of an INT8 graph, `scale_faults` of the bytes of a graph.

    The runtime finds this through the entry point `plan`, so that it needs no onnx itself.
    """
    model = onnx.load_from_string(serialised)
    faults = plan_faults(model)
    if contract_of(model).precision == "int8":
        try:
            faults += scale_faults(model, table_of(model))
        except GraphError as error:
            faults.append(str(error))
    return faults


def table_of(model: ModelProto) -> RangeTable:
    """The range table in the metadata of an INT8 graph. Raises GraphError where there is none, or another graph's."""
    text = ranges_of(model)
    if text is None:
        raise GraphError("the graph holds no range table: an older version wrote it, export it again")
    table = parse_table(text, "the range table in the graph")
    if table.weights_sha256 != contract_of(model).weights_sha256:
        raise GraphError("the range table in the graph is of other weights")
    return table


def _type_faults(model: ModelProto, contract: Contract) -> list[str]:
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    graph = inferred.graph
    types = {item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.input, *graph.output)}
    stored = {item.name: item.data_type for item in graph.initializer}
    types |= stored
    faults = []
    for node in graph.node:
        has_float16 = TensorProto.FLOAT16 in (types.get(name) for name in (*node.input, *node.output))
        if has_float16 and node.op_type not in _FLOAT16_OPERATORS:
            faults.append(f"{node.name}: {node.op_type} is in float16, expected float32")
        elif has_float16 and node.op_type == "Add" and any(name in stored for name in node.input):
            faults.append(f"{node.name}: adds a constant in float16, expected float32")
        elif node.op_type == "Conv" and not has_float16 and contract.precision == "float16":
            faults.append(f"{node.name}: is in float32, expected float16")
    return faults


def _pair_faults(model: ModelProto) -> list[str]:
    """Every QuantizeLinear must be read by DequantizeLinear nodes of its own scale and zero point alone."""
    arrays = _arrays(model)
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    faults = []
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        pairs = readers.get(node.output[0], [])
        if not pairs or any(reader.op_type != "DequantizeLinear" for reader in pairs):
            faults.append(f"{node.name}: is not read by DequantizeLinear alone")
        for reader in pairs:
            for number, what in ((1, "scale"), (2, "zero point")):
                mine, theirs = (_parameter(arrays, end, number) for end in (node, reader))
                if mine is None or theirs is None or mine.dtype != theirs.dtype or not np.array_equal(mine, theirs):
                    faults.append(f"{node.name}: its {what} is not that of {reader.name}")
    return faults


def _parameter(arrays: dict[str, Array], node: NodeProto, number: int) -> Array | None:
    return arrays.get(node.input[number]) if len(node.input) > number else None


def _quantised_activations(model: ModelProto) -> Iterator[tuple[str, str, NodeProto]]:
    """Node name, tensor as range tables name it, and QuantizeLinear of each quantised input and output of a
    convolution."""
    is_float16 = contract_of(model).holds_float16
    producers = {name: node for node in model.graph.node for name in node.output}
    quantisers = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        weight, activation = (producers.get(node.input[place]) for place in (1, 0))
        if weight is None or weight.op_type != "DequantizeLinear":
            continue
        name = weight.input[0].removeprefix("generator.").removesuffix("_quantized").removesuffix(".weight")
        # The float16 wrapper adds a level to the names of convolutions.
        name = name.removesuffix(".conv") if is_float16 else name
        if activation is not None and activation.op_type == "DequantizeLinear":
            yield node.name, f"{name} input", producers[activation.input[0]]
        if node.output[0] in quantisers:
            yield node.name, f"{name} output", quantisers[node.output[0]]


def _arrays(model: ModelProto) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
