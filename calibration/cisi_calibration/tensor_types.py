"""Which types the tensors of a graph may have, by what computes them and what reads them.

Rounding changes none of it, so there is no tolerance. Statistics, pooling, style path, codec and composite are float32
whatever the precision. A detour through another type and back is as wrong as staying there: it rounds.
"""

from __future__ import annotations

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from cisi_calibration.model_contract import contract_of
from cisi_runtime.contract import Contract

_FLOAT, _HALF = int(TensorProto.FLOAT), int(TensorProto.FLOAT16)
_UINT8, _INT8, _BOOL = int(TensorProto.UINT8), int(TensorProto.INT8), int(TensorProto.BOOL)
_RESULTS = frozenset((_FLOAT, _UINT8, _INT8, _BOOL))
_INPUT, _STORED = "an input", "a stored tensor"
# Casts of every graph: type before and after, and what computes the tensor. Pixels to float and back, and comparisons.
_PLAIN_CASTS = (
    (_UINT8, _FLOAT, _INPUT),
    (_FLOAT, _UINT8, "Transpose"),
    (_BOOL, _FLOAT, "GreaterOrEqual"),
    (_BOOL, _FLOAT, "LessOrEqual"),
)
# What may read a tensor once it has been cast to float16, by what computes it in float32: sums and products at the end
# of a norm, the encoders' input, and results of INT8 convolutions without a norm. A Cast among the readers is one back
# to float32, in front of the quantiser of an INT8 convolution.
_INTO_HALF = {
    "Add": {"Add", "Cast", "Conv", "Relu"},
    "Mul": {"Add", "Relu"},
    "Concat": {"Conv"},
    "Conv": {"DepthToSpace", "Relu"},
}
# What may read a float16 tensor, by what computes it in float16.
_WITHIN_HALF = {
    "Add": {"Add", "Cast", "Conv"},
    "Conv": {"Cast", "DepthToSpace", "Relu"},
    "DepthToSpace": {"Relu"},
    "Relu": {"Add", "Cast", "Conv"},
    _STORED: {"Conv"},
}
# What may read a tensor once it has been cast back to float32, by what computes it in float16: the statistics of a
# norm, the tanh, the pooling of the style encoder, and quantisers.
_OUT_OF_HALF = {
    "Conv": {"ReduceMean", "Sub", "Tanh"},
    "Relu": {"Mul", "QuantizeLinear"},
    "Add": {"QuantizeLinear"},
    "Cast": {"QuantizeLinear"},
}


def type_faults(model: ModelProto) -> list[str]:
    """Where the types of a graph's tensors are not what its contract promises, in words; empty for nothing.

    Raises InferenceError of onnx where they contradict each other.
    """
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return _Types(inferred.graph, contract_of(model)).faults()


class _Types:
    def __init__(self, graph: GraphProto, contract: Contract) -> None:
        self._graph, self._holds_half = graph, contract.holds_float16
        self._types: dict[str, int] = {
            item.name: item.type.tensor_type.elem_type for item in (*graph.value_info, *graph.input, *graph.output)
        }
        self._stored = {item.name: item.data_type for item in graph.initializer}
        self._types |= self._stored
        self._producers = {name: node for node in graph.node for name in node.output}
        self._readers: dict[str, set[str]] = {}
        for node in graph.node:
            for name in node.input:
                self._readers.setdefault(name, set()).add(node.op_type)
        for item in graph.output:
            self._readers.setdefault(item.name, set()).add("the output")

    def faults(self) -> list[str]:
        faults = []
        for node in self._graph.node:
            if node.op_type == "Cast":
                faults += self._cast_faults(node)
            for name in node.output:
                faults += self._result_faults(node, name)
            if node.op_type == "Conv" and self._holds_half and self._is_float_convolution(node):
                faults.append(f"{node.name}: is in float32, expected float16")
        for name, kind in self._stored.items():
            if kind == _HALF:
                faults += self._half_faults(name, _STORED, _WITHIN_HALF)
        return faults

    def _result_faults(self, node: NodeProto, name: str) -> list[str]:
        kind = self._types.get(name, _FLOAT)
        if kind == _HALF and self._holds_half:
            return self._half_faults(name, node.op_type, _WITHIN_HALF) if node.op_type != "Cast" else []
        return [] if kind in _RESULTS else [f"{node.name}: its result is {_named(kind)}, expected float32"]

    def _cast_faults(self, node: NodeProto) -> list[str]:
        before, after = (self._types.get(name, _FLOAT) for name in (node.input[0], node.output[0]))
        source = self._source(node.input[0])
        if (before, after) == (_FLOAT, _HALF):
            return self._half_faults(node.output[0], source, _INTO_HALF)
        if (before, after) == (_HALF, _FLOAT):
            return self._half_faults(node.output[0], source, _OUT_OF_HALF)
        goes_on = after == _UINT8 and self._readers.get(node.output[0]) != {"the output"}
        if (before, after, source) not in _PLAIN_CASTS or goes_on:
            return [f"{node.name}: casts {_named(before)} of {source} to {_named(after)}, expected float32 throughout"]
        return []

    def _half_faults(self, name: str, source: str, allowed: dict[str, set[str]]) -> list[str]:
        wrong = self._readers.get(name, set()) - allowed.get(source, set())
        if source in allowed and not wrong:
            return []
        readers = ", ".join(sorted(wrong)) or "nothing"
        return [f"{name}: {source} goes through float16 to {readers}, expected float32"]

    def _source(self, name: str) -> str:
        if name in self._producers:
            return str(self._producers[name].op_type)
        return _STORED if name in self._stored else _INPUT

    def _is_float_convolution(self, node: NodeProto) -> bool:
        weight = self._producers.get(node.input[1])
        return self._types.get(node.output[0]) != _HALF and (weight is None or weight.op_type != "DequantizeLinear")


def _named(kind: int) -> str:
    names = {_FLOAT: "float32", _HALF: "float16"}
    return names.get(kind) or TensorProto.DataType.Name(kind).lower()
