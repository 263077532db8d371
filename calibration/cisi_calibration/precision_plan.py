"""Which types a graph's tensors must have, and how its INT8 tensors must be scaled, node by node. Rounding changes none
of it, so there is no tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from cisi_calibration.convolutions import may_be_int8
from cisi_calibration.model_contract import contract_of, ranges_of, record_of
from cisi_calibration.table import RangeTable, parse_table
from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError

# What may be float16. Statistics, masked pooling, style path, codec and composite are other operators.
_FLOAT16_OPERATORS = frozenset(("Add", "Cast", "Conv", "DepthToSpace", "Relu"))
# Float32 arithmetic on the way from a range to a scale: some units in the last place.
_SAME_SCALE = 1e-5
_SYMMETRIC_LEVELS = 127
# Largest steps of a weight: 8 bits, 7 bits of ours, 7 bits of ONNX Runtime's `reduce_range`.
_WEIGHT_LEVELS = (127, 64, 63)
Array = npt.NDArray[Any]


def plan_faults(model: ModelProto) -> list[str]:
    """Where a graph's types, or its Q/DQ nodes, are not what its contract promises, in words."""
    contract = contract_of(model)
    faults = _type_faults(model, contract) if contract.holds_float16 else []
    return faults + _pair_faults(model)


def scale_faults(model: ModelProto, table: RangeTable) -> list[str]:
    """Where an INT8 graph is not what its range table and its export record say, in words: scales, zero points and
    types of activations, Q/DQ that is lost or surplus, weights, and which convolutions stay in float."""
    arrays, record = _arrays(model), record_of(model)
    activations = list(_quantised_activations(model))
    faults = [_activation_fault(model, arrays, table, tensor, node) for tensor, node in activations]
    known = {id(node) for _, node in activations}
    faults += [
        f"{node.name}: quantises {node.input[0]}, which is no input or output of an INT8 convolution"
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and id(node) not in known
    ]
    kept_float = set()
    for node, name, weight in _convolutions(model):
        if weight is None:
            kept_float.add(name)
            continue
        faults.append(_weight_fault(name, arrays, weight))
        if f"{name} input" not in {tensor for tensor, _ in activations}:
            faults.append(f"{node.name}: its weights are INT8, its input is not")
    if record is not None:
        target = contract_of(model).target
        faults += [
            f"{name}: is in {'float' if name in kept_float else 'INT8'}, which the export record does not say"
            for name in sorted(kept_float ^ set(record.kept_float))
            if may_be_int8(name, target)
        ]
    return [fault for fault in faults if fault]


def serialised_plan_faults(serialised: bytes) -> list[str]:
    """`plan_faults` and, of an INT8 graph, `scale_faults` of the bytes of a graph.

    The runtime finds this through the entry point `plan`, so that it needs no onnx itself.
    """
    model = onnx.load_from_string(serialised)
    try:
        faults = plan_faults(model)
    except onnx.shape_inference.InferenceError as error:
        return [f"its types contradict each other: {str(error).splitlines()[0]}"]
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
    return faults + _detours(graph, types)


def _detours(graph: GraphProto, types: Mapping[str, int]) -> list[str]:
    """Casts from float32 to float16 and straight back: what lies between is float32 in name alone."""
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    return [
        f"{node.name}: {node.input[0]} goes through float16"
        for node in graph.node
        if node.op_type == "Cast"
        and (types.get(node.input[0]), types.get(node.output[0])) == (TensorProto.FLOAT, TensorProto.FLOAT16)
        and readers.get(node.output[0]) == {"Cast"}
    ]


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


def _activation_fault(
    model: ModelProto, arrays: dict[str, Array], table: RangeTable, tensor: str, node: NodeProto
) -> str:
    """What is wrong with a QuantizeLinear of an activation, "" for nothing."""
    entry = table.ranges.get(tensor)
    if entry is None:
        return f"{node.name}: the range table has no {tensor}"
    scale, zero_point = (_parameter(arrays, node, number) for number in (1, 2))
    kind: np.dtype[Any]
    if contract_of(model).target == "tensorrt":
        right, right_zero, kind = entry.int8 / _SYMMETRIC_LEVELS, 0, np.dtype(np.int8)
    else:
        lowest, highest = entry.uint8
        right, kind = (highest - lowest) / 255, np.dtype(np.uint8)
        right_zero = round(-lowest / right) if right > 0.0 else 0
    if scale is None or zero_point is None or scale.shape or zero_point.shape or zero_point.dtype != kind:
        return f"{tensor}: expected one stored scale and one {kind} zero point"
    if right > 0.0 and abs(float(scale) / right - 1.0) > _SAME_SCALE:
        return f"{tensor}: the scale is {float(scale):.6g}, expected {right:.6g} by the range table"
    if int(zero_point) != right_zero:
        return f"{tensor}: the zero point is {int(zero_point)}, expected {right_zero} by the range table"
    return ""


def _weight_fault(name: str, arrays: dict[str, Array], node: NodeProto) -> str:
    """What is wrong with the DequantizeLinear of a weight, "" for nothing: each output channel has a scale, and uses it
    to its last step."""
    values, scale, zero_point = (arrays.get(tensor) for tensor in [*node.input, "", ""][:3])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if values is None or scale is None or zero_point is None or values.dtype != np.int8 or axis != 0:
        return f"{name}.weight: expected stored int8 values, scales and zero points for each output channel"
    if scale.shape != values.shape[:1] or zero_point.shape != scale.shape or zero_point.any():
        return f"{name}.weight: expected a scale for each of {len(values)} output channels, and zero points of 0"
    largest = np.abs(values.astype(np.int64)).reshape(len(values), -1).max(axis=1)
    if not np.isin(largest, (0, *_WEIGHT_LEVELS)).all():
        return f"{name}.weight: an output channel does not reach the last step of its scale"
    return ""


def _convolutions(model: ModelProto) -> Iterator[tuple[NodeProto, str, NodeProto | None]]:
    """Each convolution, its name, and the DequantizeLinear of its weight, if it has one."""
    is_float16 = contract_of(model).holds_float16
    producers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Conv":
            weight = producers.get(node.input[1])
            stored = node.input[1] if weight is None else weight.input[0].removesuffix("_quantized")
            name = stored.removeprefix("generator.").removesuffix(".weight")
            # The float16 wrapper adds a level to the names of convolutions.
            yield node, name.removesuffix(".conv") if is_float16 else name, weight


def _quantised_activations(model: ModelProto) -> Iterator[tuple[str, NodeProto]]:
    """Tensor as range tables name it, and each QuantizeLinear of inputs and outputs of INT8 convolutions."""
    producers = {name: node for node in model.graph.node for name in node.output}
    quantisers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            quantisers.setdefault(node.input[0], []).append(node)
    for node, name, weight in _convolutions(model):
        if weight is None:
            continue
        activation = producers.get(node.input[0])
        source = producers.get(activation.input[0]) if activation is not None else None
        if source is not None and source.op_type == "QuantizeLinear":
            yield f"{name} input", source
        for quantiser in quantisers.get(node.output[0], []):
            yield f"{name} output", quantiser


def _arrays(model: ModelProto) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
