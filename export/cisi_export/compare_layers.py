"""Finds the first wrong layer: activations of a graph, layer by layer, against those of a reference graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto

from cisi_runtime.backends.graph import open_session

Arrays = dict[str, npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class LayerError:
    """A tensor that both graphs compute. error: RMS of the difference, relative to the RMS of the right one."""

    tensor: str
    operator: str
    error: float


@dataclasses.dataclass(frozen=True)
class LayerComparison:
    """Two graphs, layer by layer.

    limit: largest relative error that is not a fault.
    layers: all common float tensors, in the order of computation.
    first_bad_layer: the first one beyond the limit.
    missing: the first tensor of the right graph that the other one does not compute.
    """

    limit: float
    layers: list[LayerError]
    first_bad_layer: LayerError | None
    missing: str | None

    def __str__(self) -> str:
        lines = []
        if self.missing is not None:
            lines.append(f"the graph lacks {self.missing}, which an export of the checkpoint computes")
        if self.first_bad_layer is not None:
            bad = self.first_bad_layer
            lines.append(f"first layer that differs: {bad.operator} -> {bad.tensor}, relative error {bad.error:.1e}")
            before = self.layers[: self.layers.index(bad)]
            if before:
                lines.append(f"before it: {before[-1].operator} -> {before[-1].tensor}, {before[-1].error:.1e}")
        return "\n".join(lines) or f"all {len(self.layers)} layers agree up to a relative error of {self.limit:.0e}"


def compare_layers(right: ModelProto, suspect: ModelProto, inputs: Arrays, limit: float) -> LayerComparison:
    """Run both graphs on the same inputs with every float tensor as an output, and compare those of the same name.

    right, suspect: as `cpu_runnable` gives them, exported alike: the same precision (of an INT8 graph the float32 one),
        lowering and face.
    limit: largest relative error that is not a fault.
    """
    expected, actual = _activations(right, inputs), _activations(suspect, inputs)
    operators = {name: node.op_type for node in right.graph.node for name in node.output}
    layers: list[LayerError] = []
    missing: str | None = None
    for name, value in expected.items():
        other = actual.get(name)
        if other is None or other.shape != value.shape:
            missing = missing or f"{operators[name]} -> {name}"
            continue
        scale = float(np.sqrt(np.mean(np.square(value, dtype=np.float64))))
        error = float(np.sqrt(np.mean(np.square(other.astype(np.float64) - value))))
        layers.append(LayerError(name, operators[name], error / scale if scale > 0.0 else error))
    first_bad_layer = next((layer for layer in layers if not layer.error <= limit), None)
    return LayerComparison(limit, layers, first_bad_layer, missing)


def _activations(model: ModelProto, inputs: Arrays) -> Arrays:
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    floats = {
        value.name: value
        for value in inferred.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    names = [name for node in model.graph.node for name in node.output if name in floats]
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(floats[name] for name in names)
    session: onnxruntime.InferenceSession = open_session(copy.SerializeToString())
    return dict(zip(names, session.run(names, inputs), strict=True))
