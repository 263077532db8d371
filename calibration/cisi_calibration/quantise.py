"""Q/DQ for ONNX Runtime's CPU kernels, placed by its own quantiser from our ranges."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantType

from cisi_calibration.observe import RangeTable
from cisi_runtime.errors import GraphError

# The first and last convolutions are 1-2 % of the work and see the pixels: they stay in float32.
_PIXEL_CHANNELS = (3, 4)


def convolutions_to_quantise(model: ModelProto) -> list[NodeProto]:
    """Every convolution but those that read or write pixels. Raises GraphError for an already quantised graph."""
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise GraphError("the graph is quantised already, expected a float32 graph")
    weights = {initialiser.name: tuple(initialiser.dims) for initialiser in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return [
        node
        for node in convolutions
        if weights[node.input[1]][0] not in _PIXEL_CHANNELS and weights[node.input[1]][1] not in _PIXEL_CHANNELS
    ]


def tensors_to_observe(model: ModelProto) -> list[str]:
    """Inputs and outputs of the convolutions that will be quantised, each once, in graph order."""
    convolutions = convolutions_to_quantise(model)
    return list(dict.fromkeys(name for node in convolutions for name in (node.input[0], node.output[0])))


def quantise(model: ModelProto, table: RangeTable) -> ModelProto:
    """A copy with Q/DQ on inputs and outputs of convolutions: activations uint8, weights int8 for each output channel.

    Biases stay float (`QuantizeBias=False`): the kernels fuse all the same, and TensorRT parses no int32 bias.
    """
    ranges = {
        name: TensorData(lowest=np.float32(lowest), highest=np.float32(highest))
        for name, (lowest, highest) in table.ranges.items()
    }
    copy = ModelProto()
    copy.CopyFrom(model)
    quantiser = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, ranges),
        nodes_to_quantize=[node.name for node in convolutions_to_quantise(model)],
        nodes_to_exclude=[],
        op_types_to_quantize=["Conv"],
        extra_options={"QuantizeBias": False},
    )
    quantiser.quantize_model()
    # It puts nodes in front of those that they read from, which the checker refuses.
    quantiser.model.topological_sort()
    result = ModelProto()
    result.CopyFrom(quantiser.model.model)
    return result
