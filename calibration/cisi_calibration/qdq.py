"""Q/DQ nodes for two targets from one range table: what each backend's kernels want."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType

from cisi_calibration.convolutions import candidates, convolutions
from cisi_calibration.table import RangeTable

# Levels of a symmetric int8 tensor on each side of zero.
_LEVELS = 127
# Scale of a tensor that is all zero. Any value but zero will do.
_SMALLEST = 1e-30


def insert_qdq_cpu(
    model: ModelProto, table: RangeTable, kept_float: Collection[str], *, reduce_range: bool = False
) -> ModelProto:
    """For ONNX Runtime's CPU kernels: a copy of a float32 graph with Q/DQ around all candidates not in `kept_float`.

    Q/DQ stands on inputs and outputs. Activations are uint8, weights int8 for each output channel (7 bits with
    `reduce_range`). A residual sum reads the dequantised tensor too, as ONNX Runtime's quantiser has it. Biases stay
    float (`QuantizeBias=False`); the kernels still fuse. The caller sets the contract.
    """
    quantised_nodes = {name: node for name, node in candidates(model, "cpu").items() if name not in kept_float}
    ranges: dict[str, TensorData] = {}
    for name, node in quantised_nodes.items():
        for side, tensor in (("input", node.input[0]), ("output", node.output[0])):
            lowest, highest = table.ranges[f"{name} {side}"].uint8
            ranges[tensor] = TensorData(lowest=np.float32(lowest), highest=np.float32(highest))
    copy = _copy(model)
    quantiser = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in quantised_nodes.values()],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={"QuantizeBias": False},
    )
    quantiser.quantize_model()
    # It puts nodes in front of those that they read from, which ONNX's checker refuses.
    quantiser.model.topological_sort()
    return _copy(quantiser.model.model)


def insert_qdq_tensorrt(
    fp16_graph: ModelProto, weights: dict[str, npt.NDArray[Any]], table: RangeTable, kept_float: Collection[str]
) -> ModelProto:
    """For TensorRT: a copy of the float16 graph of the `tensorrt` lowering with candidates in symmetric INT8.

    weights: float32 values by the names of `float_weights`; quantising float16 ones would round twice.

    Scales and biases are float32. Q/DQ stands on the input of a convolution alone, so a residual sum reads the float
    tensor. In front of a norm it also stands on the output, which goes into the norm's float32 statistics without a
    cast. Of the placements tried this gives the fewest kernels (TensorRT-RTX 1.7.1, preset paper, style encoder in INT8
    too: 87; without Q/DQ on outputs 106; with float16 scales or a cast before the norm 125; float16: 83).
    """
    quantised_names = {
        node.name: name for name, node in candidates(fp16_graph, "tensorrt").items() if name not in kept_float
    }
    copy = _copy(fp16_graph)
    graph = copy.graph
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    stored: dict[str, npt.NDArray[Any]] = {"int8_zero": np.zeros((), dtype=np.int8)}
    nodes: list[NodeProto] = []
    # Outputs of casts that are removed, and the tensors that replace them.
    replacements: dict[str, str] = {}
    for node in graph.node:
        if node.name not in quantised_names:
            nodes.append(node)
            continue
        name = quantised_names[node.name]
        output = node.output[0]
        float_input = f"{name}/input"
        nodes.append(helper.make_node("Cast", [node.input[0]], [float_input], f"{name}/cast", to=TensorProto.FLOAT))
        quantised = _quantise(nodes, stored, float_input, table.ranges[f"{name} input"].int8)
        node.input[0] = quantised
        node.input[1] = _quantise_weight(nodes, stored, node.input[1], weights[f"{name}.weight"])
        if len(node.input) == 3:
            stored[node.input[2]] = weights[f"{name}.bias"].astype(np.float32)
        node.output[0] = f"{name}/output"
        nodes.append(node)
        if all(reader.op_type == "Cast" for reader in readers[output]):
            result = _quantise(nodes, stored, node.output[0], table.ranges[f"{name} output"].int8)
            replacements |= {reader.output[0]: result for reader in readers[output]}
        else:
            nodes.append(helper.make_node("Cast", [node.output[0]], [output], f"{name}/half", to=TensorProto.FLOAT16))
    del graph.node[:]
    graph.node.extend(node for node in nodes if node.output[0] not in replacements)
    for node in graph.node:
        node.input[:] = [replacements.get(tensor, tensor) for tensor in node.input]
    used = {tensor for node in graph.node for tensor in node.input}
    unchanged = [item for item in graph.initializer if item.name in used and item.name not in stored]
    del graph.initializer[:]
    graph.initializer.extend(unchanged)
    graph.initializer.extend(numpy_helper.from_array(array, tensor) for tensor, array in stored.items())
    del graph.value_info[:]
    return copy


def float_weights(model: ModelProto) -> dict[str, npt.NDArray[Any]]:
    """Weights and biases of a float32 graph's convolutions, by "MODULE.weight" and "MODULE.bias"."""
    arrays = {item.name: item for item in model.graph.initializer}
    weights: dict[str, npt.NDArray[Any]] = {}
    for name, node in convolutions(model).items():
        for part, tensor in zip(("weight", "bias"), node.input[1:], strict=False):
            weights[f"{name}.{part}"] = numpy_helper.to_array(arrays[tensor])
    return weights


def _quantise(nodes: list[NodeProto], stored: dict[str, npt.NDArray[Any]], tensor: str, peak: float) -> str:
    scale = f"{tensor}_scale"
    stored[scale] = np.array(max(peak, _SMALLEST) / _LEVELS, dtype=np.float32)
    ends = [f"{tensor}_quantised", f"{tensor}_dequantised"]
    nodes.append(helper.make_node("QuantizeLinear", [tensor, scale, "int8_zero"], [ends[0]], f"{tensor}/q"))
    nodes.append(helper.make_node("DequantizeLinear", [ends[0], scale, "int8_zero"], [ends[1]], f"{tensor}/dq"))
    return ends[1]


def _quantise_weight(
    nodes: list[NodeProto], stored: dict[str, npt.NDArray[Any]], tensor: str, weight: npt.NDArray[Any]
) -> str:
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = (np.maximum(largest, _SMALLEST) / _LEVELS).astype(np.float32)
    steps = np.rint(weight.astype(np.float64) / scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1)))
    names = [f"{tensor}_quantized", f"{tensor}_scale", f"{tensor}_zero_point"]
    stored[names[0]] = np.clip(steps, -_LEVELS, _LEVELS).astype(np.int8)
    stored[names[1]], stored[names[2]] = scale, np.zeros(len(scale), dtype=np.int8)
    nodes.append(helper.make_node("DequantizeLinear", names, [f"{tensor}_dequantised"], f"{tensor}/dq", axis=0))
    return f"{tensor}_dequantised"


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
