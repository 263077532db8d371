"""The convolutions of a graph by the names of their modules, which both lowerings share, but for the one to RGB."""

from __future__ import annotations

import re

from onnx import ModelProto, NodeProto

from cisi_calibration.model_contract import contract_of
from cisi_runtime.errors import GraphError

_PREFIX = "generator."
# Operators that a quantiser or an optimiser has put into a graph.
_REWRITTEN = re.compile("Quantize|QLinear|Integer|Fused")
# The convolutions that read pixels. Their input is in [-1, 1], whatever the photograph.
PIXEL_READERS = ("inferred_content.down.0.conv", "style.convs.0")
# The convolution to RGB, in the cpu lowering and in TensorRT's. Its output is not quantised: 256 levels in front of the
# tanh show as bands in a plain sky.
TO_RGB = "decoder.to_rgb.conv"
_TO_RGB_TENSORRT = "decoder.to_rgb"
# On TensorRT the style encoder stays in float too. There is no norm between its convolutions whose kernel could
# quantise, so each of them costs one kernel more in INT8 (87 kernels against 83, preset paper, TensorRT-RTX 1.7.1).
_STYLE = "style."


def convolutions(model: ModelProto) -> dict[str, NodeProto]:
    """Every convolution by its module's name, in graph order. Raises GraphError for a graph that is quantised or
    optimised, and for a convolution whose weights are not stored."""
    foreign = {node.op_type for node in model.graph.node if node.domain or _REWRITTEN.search(node.op_type)}
    if foreign:
        raise GraphError(
            f"is quantised or optimised already (it holds {min(foreign)}), expected a graph of cisi-export"
        )
    stored = {initialiser.name for initialiser in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and not stored.issuperset(node.input[1:]):
            raise GraphError(f"the weights of {node.name} are not in the graph")
    # The float16 wrapper adds a level to the names of convolutions.
    ending = ".conv.weight" if contract_of(model).precision == "float16" else ".weight"
    return {
        node.input[1].removeprefix(_PREFIX).removesuffix(ending): node
        for node in model.graph.node
        if node.op_type == "Conv"
    }


def candidates(model: ModelProto, target: str) -> dict[str, NodeProto]:
    """The convolutions that may become INT8 for a target, "cpu" or "tensorrt"."""
    return {name: node for name, node in convolutions(model).items() if may_be_int8(name, target)}


def may_be_int8(name: str, target: str) -> bool:
    """Whether a convolution may become INT8.

    On CPUs all of them: in float the three that see pixels take a fifth of the time (OpenVINO, preset paper). On
    TensorRT these stay in float, and the style encoder.
    """
    return target == "cpu" or (name not in PIXEL_READERS and not name.startswith((_STYLE, _TO_RGB_TENSORRT)))
