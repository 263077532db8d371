"""Q/DQ nodes for two targets from one range table: what each backend's kernels want."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType

from cisi_calibration.convolutions import PIXEL_READERS, TO_RGB, candidates, convolutions
from cisi_calibration.table import RangeTable

# Levels of a symmetric int8 tensor on each side of zero.
_LEVELS = 127
# The same in 7 bits.
_REDUCED_LEVELS = 64
# Scale of a tensor that is all zero. Any value but zero will do.
_SMALLEST = 1e-30


def insert_qdq_cpu(
    model: ModelProto, table: RangeTable, kept_float: Collection[str], *, reduce_range: bool = False
) -> ModelProto:
    """For ONNX Runtime's CPU kernels: a copy of a float32 graph with Q/DQ around all candidates not in `kept_float`.

    Q/DQ stands on inputs and outputs, of the convolution to RGB on the input alone. Activations are uint8, weights int8
    for each output channel. They have 7 bits where pixels are read, and everywhere with `reduce_range`: bright pixels
    would saturate on a CPU without VNNI (28.9 dB instead of 42.3 for a white picture). A residual sum reads the
    dequantised tensor too, as ONNX Runtime's quantiser has it. Biases stay float (`QuantizeBias=False`); the kernels
    still fuse. The caller sets the contract.
    """
    quantised_nodes = {name: node for name, node in candidates(model, "cpu").items() if name not in kept_float}
    ranges: dict[str, TensorData] = {}
    for name, node in quantised_nodes.items():
        for side, tensor in (("input", node.input[0]), ("output", node.output[0])):
            # The quantiser wants a range for every output; the pair behind the convolution to RGB is taken out again.
            key = f"{name} {side}" if (name, side) != (TO_RGB, "output") else f"{name} input"
            lowest, highest = table.ranges[key].uint8
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
    quantised = _copy(quantiser.model.model)
    weights = float_weights(model)
    for name in set(PIXEL_READERS) & quantised_nodes.keys():
        _reduce_weight(quantised.graph, quantised_nodes[name].input[1], weights[f"{name}.weight"])
    if TO_RGB in quantised_nodes:
        _remove_pair(quantised.graph, quantised_nodes[TO_RGB].output[0])
    return quantised


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
    rewrite = _TensorRtRewrite(copy.graph, weights, table)
    for node in copy.graph.node:
        if node.name in quantised_names:
            rewrite.quantise_convolution(node, quantised_names[node.name])
        else:
            rewrite.nodes.append(node)
    rewrite.replace_graph()
    return copy


def float_weights(model: ModelProto) -> dict[str, npt.NDArray[Any]]:
    """Weights and biases of a float32 graph's convolutions, by "MODULE.weight" and "MODULE.bias"."""
    arrays = {item.name: item for item in model.graph.initializer}
    weights: dict[str, npt.NDArray[Any]] = {}
    for name, node in convolutions(model).items():
        for part, tensor in zip(("weight", "bias"), node.input[1:], strict=False):
            weights[f"{name}.{part}"] = numpy_helper.to_array(arrays[tensor])
    return weights


class _TensorRtRewrite:
    """New nodes and stored tensors for a float16 graph, collected convolution by convolution.

    nodes: of the new graph, in order.
    stored: its new tensors, by name.
    replacements: outputs of casts that are removed, and the tensors that replace them.
    """

    def __init__(self, graph: GraphProto, weights: dict[str, npt.NDArray[Any]], table: RangeTable) -> None:
        self._graph, self._weights, self._table = graph, weights, table
        self._readers: dict[str, list[NodeProto]] = {}
        for node in graph.node:
            for tensor in node.input:
                self._readers.setdefault(tensor, []).append(node)
        self.nodes: list[NodeProto] = []
        self.stored: dict[str, npt.NDArray[Any]] = {"int8_zero": np.zeros((), dtype=np.int8)}
        self.replacements: dict[str, str] = {}

    def quantise_convolution(self, node: NodeProto, name: str) -> None:
        """Add a convolution with Q/DQ on its input, its weights, and in front of a norm its output."""
        output = node.output[0]
        float_input = f"{name}/input"
        self._add("Cast", [node.input[0]], float_input, f"{name}/cast", to=TensorProto.FLOAT)
        node.input[0] = self._quantise(float_input, self._table.ranges[f"{name} input"].int8)
        node.input[1] = self._quantise_weight(node.input[1], self._weights[f"{name}.weight"])
        if len(node.input) == 3:
            self.stored[node.input[2]] = self._weights[f"{name}.bias"].astype(np.float32)
        node.output[0] = f"{name}/output"
        self.nodes.append(node)
        if all(reader.op_type == "Cast" for reader in self._readers[output]):
            result = self._quantise(node.output[0], self._table.ranges[f"{name} output"].int8)
            self.replacements |= {reader.output[0]: result for reader in self._readers[output]}
        else:
            self._add("Cast", [node.output[0]], output, f"{name}/half", to=TensorProto.FLOAT16)

    def replace_graph(self) -> None:
        """Put the new nodes and tensors in place of the graph's."""
        graph = self._graph
        nodes = [node for node in self.nodes if node.output[0] not in self.replacements]
        del graph.node[:]
        graph.node.extend(nodes)
        for node in graph.node:
            node.input[:] = [self.replacements.get(tensor, tensor) for tensor in node.input]
        used = {tensor for node in graph.node for tensor in node.input}
        unchanged = [item for item in graph.initializer if item.name in used and item.name not in self.stored]
        del graph.initializer[:]
        graph.initializer.extend(unchanged)
        graph.initializer.extend(numpy_helper.from_array(array, tensor) for tensor, array in self.stored.items())
        del graph.value_info[:]

    def _add(self, operator: str, inputs: list[str], output: str, name: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], name, **attributes))

    def _quantise(self, tensor: str, peak: float) -> str:
        scale, quantised, dequantised = (f"{tensor}_{part}" for part in ("scale", "quantised", "dequantised"))
        self.stored[scale] = np.array(max(peak, _SMALLEST) / _LEVELS, dtype=np.float32)
        self._add("QuantizeLinear", [tensor, scale, "int8_zero"], quantised, f"{tensor}/q")
        self._add("DequantizeLinear", [quantised, scale, "int8_zero"], dequantised, f"{tensor}/dq")
        return dequantised

    def _quantise_weight(self, tensor: str, weight: npt.NDArray[Any]) -> str:
        names = [f"{tensor}_quantized", f"{tensor}_scale", f"{tensor}_zero_point"]
        self.stored[names[0]], self.stored[names[1]] = _quantised_weight(weight, _LEVELS)
        self.stored[names[2]] = np.zeros(len(weight), dtype=np.int8)
        self._add("DequantizeLinear", names, f"{tensor}_dequantised", f"{tensor}/dq", axis=0)
        return f"{tensor}_dequantised"


def _quantised_weight(weight: npt.NDArray[Any], levels: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """A weight in steps of its output channel's scale, `levels` on each side of zero, and the scales."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    scale = (np.maximum(largest, _SMALLEST) / levels).astype(np.float32)
    steps = np.rint(weight.astype(np.float64) / scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1)))
    return np.clip(steps, -levels, levels).astype(np.int8), scale


def _reduce_weight(graph: GraphProto, tensor: str, weight: npt.NDArray[Any]) -> None:
    """Store a weight in 7 bits. Two products of 255 and 64 stay below 2**15."""
    steps, scale = _quantised_weight(weight, _REDUCED_LEVELS)
    values: dict[str, npt.NDArray[Any]] = {f"{tensor}_quantized": steps, f"{tensor}_scale": scale}
    for item in graph.initializer:
        if item.name in values:
            item.CopyFrom(numpy_helper.from_array(values.pop(item.name), item.name))
    assert not values


def _remove_pair(graph: GraphProto, tensor: str) -> None:
    """Take out the QuantizeLinear that reads a tensor and the DequantizeLinear behind it."""
    (quantise,) = (node for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] == tensor)
    (dequantise,) = (node for node in graph.node if quantise.output[0] in node.input)
    constants = set(quantise.input[1:])
    for node in (quantise, dequantise):
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [tensor if name == dequantise.output[0] else name for name in node.input]
    unused = [item for item in graph.initializer if item.name in constants]
    for item in unused:
        graph.initializer.remove(item)


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy
