"""What a graph costs: parameters, arithmetic and memory, from the ONNX file."""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError

# Parts of the network by how the names of their weights begin, the more specific first.
_PARTS = {
    "generator.inferred_content": "inferred-content encoder",
    "generator.style": "style encoder",
    "generator.decoder.mlp": "style MLP",
    "generator.decoder": "decoder",
}
_TYPES = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.INT8: "int8"}
_BYTES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.UINT8: 1, TensorProto.INT8: 1, TensorProto.INT64: 8}
_MAX_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution. name: of its weights. precision: what they are stored as. flop: multiplications and
    additions."""

    name: str
    precision: str
    flop: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one picture of `height` x `width` costs.

    parameters, parameter_bytes: of the stored weights.
    nodes, operators: number of nodes, in all and by operator.
    flop_by_part: a multiplication and an addition are two FLOP. Only convolutions and linear layers are counted; the
        rest is below one percent.
    convolutions: in graph order.
    largest_tensors: name, shape and bytes of activations.
    """

    height: int
    width: int
    parameters: int
    parameter_bytes: int
    nodes: int
    operators: dict[str, int]
    flop_by_part: dict[str, int]
    convolutions: list[Convolution]
    largest_tensors: list[tuple[str, str, int]]

    @property
    def flop(self) -> int:
        """Of the whole network."""
        return sum(self.flop_by_part.values())


def cost_of(model: ModelProto, contract: Contract, height: int, width: int) -> Cost:
    """The cost of one picture of a size that the graph takes. Raises GraphError when a convolution's size cannot be
    inferred or its weights are not stored arrays."""
    sized = _with_sizes(model, contract, height, width)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*sized.graph.value_info, *sized.graph.input, *sized.graph.output)
    }
    flop, convolutions = _arithmetic(model, shapes)
    weights = [item for item in model.graph.initializer if item.data_type in _TYPES]
    return Cost(
        height=height,
        width=width,
        parameters=sum(math.prod(item.dims) for item in weights if _is_weight(item.name)),
        parameter_bytes=sum(math.prod(item.dims) * _BYTES[item.data_type] for item in weights),
        nodes=len(model.graph.node),
        operators=dict(sorted(collections.Counter(node.op_type for node in model.graph.node).items())),
        flop_by_part=flop,
        convolutions=convolutions,
        largest_tensors=_largest_tensors(sized, shapes),
    )


def _arithmetic(model: ModelProto, shapes: dict[str, list[int]]) -> tuple[dict[str, int], list[Convolution]]:
    """FLOP by part of the network, and its convolutions."""
    initialisers = {item.name: item for item in model.graph.initializer}
    # Quantised weights reach their convolution through a DequantizeLinear.
    sources = {
        node.output[0]: node.input[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in initialisers
    }
    flop: collections.Counter[str] = collections.Counter()
    convolutions: list[Convolution] = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        name = sources.get(node.input[1], node.input[1])
        if name not in initialisers:
            raise GraphError(f"{node.op_type} {node.name!r} reads its weights from {name!r}, expected a stored array")
        weight = initialisers[name]
        count = _flop(node, list(weight.dims), shapes.get(node.output[0], []))
        flop[next((part for start, part in _PARTS.items() if weight.name.startswith(start)), "other")] += count
        if node.op_type == "Conv":
            name = weight.name.removesuffix("_quantized").removeprefix("generator.").removesuffix(".weight")
            convolutions.append(Convolution(name, _TYPES.get(weight.data_type, "other"), count))
    return dict(flop), convolutions


def _largest_tensors(sized: Any, shapes: dict[str, list[int]]) -> list[tuple[str, str, int]]:
    types = {value.name: value.type.tensor_type.elem_type for value in sized.graph.value_info}
    tensors = [
        (name, "x".join(map(str, shape)), math.prod(shape) * _BYTES.get(types[name], 0))
        for name, shape in shapes.items()
        if name in types and all(side > 0 for side in shape)
    ]
    return sorted(tensors, key=lambda tensor: -tensor[2])[:_MAX_SHOWN]


def _is_weight(name: str) -> bool:
    return name.startswith("generator.") and not name.endswith(("_scale", "_zero_point"))


def _flop(node: NodeProto, weight: list[int], output: list[int]) -> int:
    if not output or any(side <= 0 for side in output):
        raise GraphError(f"the size of {node.output[0]} cannot be inferred")
    if node.op_type == "Gemm":
        return 2 * math.prod(output) * (math.prod(weight) // output[-1])
    return 2 * math.prod(output) * math.prod(weight[1:])


def _with_sizes(model: ModelProto, contract: Contract, height: int, width: int) -> Any:
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.value_info[:]
    axes = dict(zip(contract.io.axes, (1, height, width), strict=True))
    for value in copy.graph.input:
        for axis, size in axes.items():
            value.type.tensor_type.shape.dim[axis].dim_value = size
    for value in copy.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.ClearField("dim_param")
    return onnx.shape_inference.infer_shapes(copy, data_prop=True)
