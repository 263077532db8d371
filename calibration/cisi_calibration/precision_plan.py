"""What is promised of a graph's arithmetic: the types of its tensors (see `tensor_types`), and how its INT8 tensors are
scaled, node by node. Rounding changes neither, so there is no tolerance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, numpy_helper

from cisi_calibration.convolutions import TO_RGB, may_be_int8
from cisi_calibration.model_contract import contract_of, ranges_of, record_of
from cisi_calibration.table import RangeTable, parse_table
from cisi_calibration.tensor_types import type_faults
from cisi_runtime.errors import GraphError
from cisi_runtime.export_record import ExportRecord

# Float32 arithmetic on the way from a range to a scale: some units in the last place.
_SAME_SCALE = 1e-5
_SYMMETRIC_LEVELS = 127
# What becomes of a tensor that is all zero: a symmetric range of 1e-30, as in `qdq`, or ONNX Runtime's step of 1.
_SMALLEST_RANGE, _STEP_OF_ZERO = 1e-30, 1.0
# Largest steps of a weight: 8 bits, 7 bits of ours, 7 bits of ONNX Runtime's `reduce_range`.
_WEIGHT_LEVELS = (127, 64, 63)
Array = npt.NDArray[Any]


def plan_faults(model: ModelProto) -> list[str]:
    """Where a graph's types, or its Q/DQ nodes, are not what its contract promises, in words. Raises InferenceError of
    onnx where types contradict each other."""
    return type_faults(model) + _pair_faults(model)


def scale_faults(model: ModelProto, table: RangeTable) -> list[str]:
    """Where an INT8 graph is not what its range table and its export record say, in words: scales, zero points and
    types of activations, Q/DQ that is lost or surplus, weights and biases, and which convolutions stay in float."""
    return _Plan(model, table).faults()


class _Plan:
    """An INT8 graph beside its range table."""

    def __init__(self, model: ModelProto, table: RangeTable) -> None:
        self._model, self._table = model, table
        self._target, self._arrays = contract_of(model).target, _arrays(model)
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._readers = _readers(model)

    def faults(self) -> list[str]:
        faults, expected = [], set()
        kept_float, names = set(), []
        for node, name, weight in _convolutions(self._model):
            names.append(name)
            if weight is None:
                kept_float.add(name)
                continue
            faults += [_weight_fault(name, self._arrays, weight), self._bias_fault(name, node)]
            for side, quantiser, tensor in self._expected_pairs(node, name):
                if quantiser is None:
                    faults.append(f"{node.name}: its weights are INT8, its {side} is not")
                else:
                    expected.add(id(quantiser))
                    faults.append(self._activation_fault(f"{name} {side}", quantiser))
                    faults += self._other_readers(tensor)
        faults += [
            f"{node.name}: quantises {node.input[0]}, which is no input of an INT8 convolution, nor an output that is "
            f"quantised for {self._target}"
            for node in self._model.graph.node
            if node.op_type == "QuantizeLinear" and id(node) not in expected
        ]
        faults += self._name_faults(names)
        record = record_of(self._model)
        if record is not None:
            faults += self._record_faults(record, kept_float, names)
        return [fault for fault in faults if fault]

    def _expected_pairs(self, node: NodeProto, name: str) -> Iterator[tuple[str, NodeProto | None, str]]:
        """Side, QuantizeLinear (None: lost) and tensor of each pair that an INT8 convolution must have: on its input,
        and on its output, for CPUs but at the one to RGB, for TensorRT in front of a norm."""
        dequantiser = self._producers.get(node.input[0])
        before = self._producers.get(dequantiser.input[0]) if dequantiser is not None else None
        if before is None or before.op_type != "QuantizeLinear":
            yield "input", None, ""
        else:
            yield "input", before, before.input[0]
        output = node.output[0]
        after = next((reader for reader in self._readers.get(output, []) if reader.op_type == "QuantizeLinear"), None)
        is_expected = name != TO_RGB if self._target == "cpu" else self._feeds_norm(output, after)
        if is_expected:
            yield "output", after, output

    def _feeds_norm(self, output: str, quantiser: NodeProto | None) -> bool:
        """Whether a norm's mean reads a tensor, directly or behind a pair of Q and DQ."""
        tensors = [output]
        if quantiser is not None:
            tensors = [name for reader in self._readers.get(quantiser.output[0], []) for name in reader.output]
        return any(reader.op_type == "ReduceMean" for name in tensors for reader in self._readers.get(name, []))

    def _other_readers(self, tensor: str) -> list[str]:
        """Whoever else reads a tensor must read what it was quantised to."""
        others = [reader.name for reader in self._readers[tensor] if reader.op_type != "QuantizeLinear"]
        return [f"{name}: reads {tensor}, which is quantised, in float" for name in others]

    def _activation_fault(self, tensor: str, node: NodeProto) -> str:
        """What is wrong with a QuantizeLinear of an activation, "" for nothing."""
        entry = self._table.ranges.get(tensor)
        if entry is None:
            return f"{node.name}: the range table has no {tensor}"
        scale, zero_point = (_parameter(self._arrays, node, number) for number in (1, 2))
        kind: np.dtype[Any]
        if self._target == "tensorrt":
            right, right_zero, kind = max(entry.int8, _SMALLEST_RANGE) / _SYMMETRIC_LEVELS, 0, np.dtype(np.int8)
        else:
            lowest, highest = entry.uint8
            step, kind = (highest - lowest) / 255, np.dtype(np.uint8)
            is_zero = step < np.finfo(np.float32).tiny
            right, right_zero = (_STEP_OF_ZERO, 0) if is_zero else (step, round(-lowest / step))
        if scale is None or zero_point is None or scale.shape or zero_point.shape or zero_point.dtype != kind:
            return f"{tensor}: expected one stored scale and one {kind} zero point"
        if not abs(float(scale) / right - 1.0) <= _SAME_SCALE:
            return f"{tensor}: the scale is {float(scale):.6g}, expected {right:.6g} by the range table"
        if int(zero_point) != right_zero:
            return f"{tensor}: the zero point is {int(zero_point)}, expected {right_zero} by the range table"
        return ""

    def _bias_fault(self, name: str, node: NodeProto) -> str:
        bias = self._arrays.get(node.input[2]) if len(node.input) > 2 else np.zeros(0, dtype=np.float32)
        return "" if bias is not None and bias.dtype == np.float32 else f"{name}.bias: expected stored float32 values"

    def _name_faults(self, names: list[str]) -> list[str]:
        """The convolutions must be those of the range table, each once."""
        of_table = {tensor.rpartition(" ")[0] for tensor in self._table.ranges}
        if self._target == "tensorrt":
            of_table = {name.removesuffix(".conv") if name == TO_RGB else name for name in of_table}
        twice = sorted({name for name in names if names.count(name) > 1})
        return [
            *(f"{name}: two convolutions read its weight" for name in twice),
            *(f"{name}: the range table has no such convolution" for name in sorted(set(names) - of_table)),
            *(f"{name}: the range table has it, the graph does not" for name in sorted(of_table - set(names))),
        ]

    def _record_faults(self, record: ExportRecord, kept_float: set[str], names: list[str]) -> list[str]:
        may_be = {name for name in names if may_be_int8(name, self._target)}
        said = set(record.kept_float)
        faults = [
            f"{name}: is in {'float' if name in kept_float else 'INT8'}, which the export record does not say"
            for name in sorted((kept_float & may_be) ^ (said & may_be))
        ]
        faults += [
            f"{name}: is in INT8, expected float for {self._target}"
            for name in sorted(set(names) - may_be - kept_float)
        ]
        faults += [f"the export record keeps {name} in float, which is no candidate" for name in sorted(said - may_be)]
        if record.reduce_range and self._target != "cpu":
            faults.append(f"the export record says 7 bits, which graphs for {self._target} do not have")
        return faults


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


def _pair_faults(model: ModelProto) -> list[str]:
    """Every QuantizeLinear must be read by DequantizeLinear nodes of its own scale and zero point alone."""
    arrays, readers = _arrays(model), _readers(model)
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


def _weight_fault(name: str, arrays: dict[str, Array], node: NodeProto) -> str:
    """What is wrong with the DequantizeLinear of a weight, "" for nothing: each output channel has a scale, and uses it
    to its last step."""
    values, scale, zero_point = (arrays.get(tensor) for tensor in [*node.input, "", ""][:3])
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    if values is None or scale is None or zero_point is None or values.dtype != np.int8 or axis % values.ndim != 0:
        return f"{name}.weight: expected stored int8 values, scales and zero points for each output channel"
    if scale.shape != values.shape[:1] or zero_point.shape != scale.shape or zero_point.any():
        return f"{name}.weight: expected a scale for each of {len(values)} output channels, and zero points of 0"
    if not (np.isfinite(scale).all() and (scale > 0.0).all()):
        return f"{name}.weight: a scale is not a positive number"
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


def _readers(model: ModelProto) -> dict[str, list[NodeProto]]:
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _arrays(model: ModelProto) -> dict[str, Array]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
