"""Which layer went wrong: the activations of a graph, layer by layer, against a graph that is known to be right."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto

_LOG_ERRORS = 3


@dataclasses.dataclass(frozen=True)
class Layer:
    """A tensor that both graphs compute. error: root mean square of the difference, relative to that of the right
    one."""

    tensor: str
    operator: str
    error: float


@dataclasses.dataclass(frozen=True)
class Walk:
    """layers: all common float tensors in the order of computation; first_bad: the first whose error is beyond the
    limit; missing: the first tensor of the right graph that the other does not compute."""

    limit: float
    layers: list[Layer]
    first_bad: Layer | None
    missing: str | None

    def __str__(self) -> str:
        lines = []
        if self.missing is not None:
            lines.append(f"the graph lacks {self.missing}, which an export of the checkpoint computes")
        if self.first_bad is not None:
            bad = self.first_bad
            lines.append(f"first layer that differs: {bad.operator} -> {bad.tensor}, relative error {bad.error:.1e}")
            before = self.layers[: self.layers.index(bad)]
            if before:
                lines.append(f"before it: {before[-1].operator} -> {before[-1].tensor}, {before[-1].error:.1e}")
        return "\n".join(lines) or f"all {len(self.layers)} layers agree up to a relative error of {self.limit:.0e}"


def walk(right: ModelProto, suspect: ModelProto, inputs: dict[str, npt.NDArray[Any]], limit: float) -> Walk:
    """Run both graphs on the same inputs with every float tensor as an output and compare those of the same name.

    Both as `runnable` gives them, exported alike: of the same precision (of an INT8 graph the float32 one), lowering
    and face. limit: the largest relative error that is not a fault.
    """
    ours, theirs = _activations(right, inputs), _activations(suspect, inputs)
    operators = {name: node.op_type for node in right.graph.node for name in node.output}
    layers: list[Layer] = []
    missing: str | None = None
    for name, value in ours.items():
        other = theirs.get(name)
        if other is None or other.shape != value.shape:
            missing = missing or f"{operators[name]} -> {name}"
            continue
        scale = float(np.sqrt(np.mean(np.square(value, dtype=np.float64))))
        error = float(np.sqrt(np.mean(np.square(other.astype(np.float64) - value))))
        layers.append(Layer(name, operators[name], error / scale if scale > 0.0 else error))
    bad = next((layer for layer in layers if not layer.error <= limit), None)
    return Walk(limit, layers, bad, missing)


def _activations(model: ModelProto, inputs: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    floats = {
        value.name: value
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    produced = [name for node in model.graph.node for name in node.output if name in floats]
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(floats[name] for name in produced)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _LOG_ERRORS
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(produced, session.run(produced, inputs), strict=True))
