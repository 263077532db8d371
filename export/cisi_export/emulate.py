"""A float16 graph emulated by a float32 graph that rounds like float16, because no CPU runs it as it is.

ONNX Runtime's CPU provider runs float16 graphs in float32 and drops its own casts, even with optimisations off. It
keeps pairs of casts that the graph itself holds. So every float16 tensor becomes a float32 tensor that has been cast to
float16 and back. What a GPU does within one kernel (it accumulates in float32) is modelled as exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cisi_calibration.model_contract import contract_of, set_contract
from cisi_runtime.errors import GraphError


def emulate_float16(model: ModelProto, *, rounding: bool = True) -> ModelProto:
    """A float32 copy of a float16 graph with a cast to float16 and back behind every float16 tensor.

    rounding: False for no casts; only the stored weights are still rounded. Raises ValueError when the type of a tensor
    cannot be inferred.
    """
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    float16_tensors = {
        value.name
        for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    typed = {value.name for value in (*inferred.graph.value_info, *inferred.graph.output)}
    untyped = {name for node in model.graph.node for name in node.output if name} - typed
    if untyped:
        raise ValueError(f"cannot infer the types of {sorted(untyped)[:5]}")
    copy = ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for initialiser in graph.initializer:
        if initialiser.data_type == TensorProto.FLOAT16:
            widened = numpy_helper.to_array(initialiser).astype(np.float32)
            initialiser.CopyFrom(numpy_helper.from_array(widened, initialiser.name))
    nodes: list[NodeProto] = []
    for node in graph.node:
        _widen_constants(node)
        rounded = [name for name in node.output if rounding and name in float16_tensors]
        renamed = {name: f"{name}/unrounded" for name in rounded}
        node.output[:] = [renamed.get(name, name) for name in node.output]
        nodes.append(node)
        for name in rounded:
            nodes.append(helper.make_node("Cast", [renamed[name]], [f"{name}/half"], to=TensorProto.FLOAT16))
            nodes.append(helper.make_node("Cast", [f"{name}/half"], [name], to=TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return copy


def emulate_serialised(serialised: bytes) -> bytes:
    """`emulate_float16` for the bytes of a graph.

    The runtime's parity checks find it through the entry point `float16`, so that they need no onnx themselves. Raises
    GraphError for a graph whose types contradict each other or cannot be inferred.
    """
    try:
        copy: bytes = emulate_float16(onnx.load_from_string(serialised)).SerializeToString()
    except (ValueError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).splitlines()[0]
        raise GraphError(f"the graph's types contradict each other, or cannot be inferred: {reason}") from error
    return copy


def float32_twin(model: ModelProto, weights: Mapping[str, npt.NDArray[Any]]) -> ModelProto:
    """A float16 graph as it would be in float32: nothing is rounded, and the weights (by their names in the graph) are
    replaced by unrounded ones. Faults of the graph itself show here, without float16's noise to hide them."""
    twin = emulate_float16(model, rounding=False)
    for initialiser in twin.graph.initializer:
        if initialiser.name in weights:
            exact = weights[initialiser.name].astype(np.float32)
            initialiser.CopyFrom(numpy_helper.from_array(exact, initialiser.name))
    set_contract(twin, dataclasses.replace(contract_of(model), precision="float32"))
    return twin


def _widen_constants(node: NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
            attribute.i = TensorProto.FLOAT
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT16:
            attribute.t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(attribute.t).astype(np.float32)))
