"""Every stored weight of a graph against the checkpoint's: a small fault hides in the noise of half precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, numpy_helper

from cisi_calibration.metadata import contract_of
from cisi_runtime.parity import WeightComparison

Array = npt.NDArray[np.float64]

_PREFIX = "generator."
# Rounding to the nearest: half a unit in the last place, relative to the weight, and half of the smallest step.
_RELATIVE = {"float32": 2.0**-24, "float16": 2.0**-11}
_ABSOLUTE = {"float32": 2.0**-150, "float16": 2.0**-25}
# Float32 arithmetic on the way (scale times integer) may cost a little more than the rounding itself.
_SLACK = 1.001
# What weights may be stored as, by the contract's precision and whether they are a convolution's (else: linear layers,
# biases, scales). A float16 graph's biases of convolutions are float16, its style path is float32.
_KINDS = {
    ("float32", True): {"float32"},
    ("float32", False): {"float32"},
    ("float16", True): {"float16"},
    ("float16", False): {"float16", "float32"},
    ("int8", True): {"int8", "float32", "float16"},
    ("int8", False): {"float32", "float16"},
}
# Largest steps of int8 weights, to either side: 8 bits, or 7 where all of a graph stay within them (--reduce-range).
_STEPS, _REDUCED_STEPS = 127, 64
# Other constants of a graph (codec, shapes, the ones and zeros of norm nodes) are short or all 0 or all 1.
_MOST_OTHER = 8


def compare_initialisers(model: ModelProto, weights: Mapping[str, npt.NDArray[Any]]) -> list[WeightComparison]:
    """Compare what the graph's convolutions and linear layers read with a checkpoint's weights (names as in
    `Generator.state_dict()`).

    Fails: a weight that no layer reads; a weight stored as less than the contract's precision says (float16 where it
    says float32), or, of a float16 graph, a convolution stored as more; a layer that reads anything but a stored
    weight of that name, for instance the result of an operator; another large float array, which could hide one.
    """
    precision = contract_of(model).precision
    stored, read = _stored(model), _read(model)
    lines: list[WeightComparison] = []
    used: set[str] = set()
    steps = _most_steps(stored.values())
    for name, expected in deployed_weights(weights).items():
        last = name.rsplit(".", 1)[1]
        found = next((key for key in _graph_names(name) if key in stored), None)
        if found is None:
            lines.append(WeightComparison(name, "missing", float("inf")))
            continue
        used.add(found)
        kind, value, step = stored[found]
        is_convolution = expected.ndim == 4
        if value.shape != expected.shape:
            kind, worst = f"{kind} {list(value.shape)}", float("inf")
        elif kind not in _KINDS[precision, is_convolution]:
            kind, worst = f"{kind} in a graph that says {precision}", float("inf")
        elif found not in read and last in ("weight", "bias"):
            kind, worst = f"{kind}, read by no layer", float("inf")
        else:
            worst = _worst(kind, value, step, expected, steps)
        lines.append(WeightComparison(name, kind, worst))
    for name in sorted(set(read) - used):
        lines.append(WeightComparison(f"{name} (not in the checkpoint)", "read by a layer", float("inf")))
    for name, (kind, value, _) in stored.items():
        is_plain = value.size <= _MOST_OTHER or bool((value == 0.0).all() or (value == 1.0).all())
        if name not in used and name not in read and not is_plain:
            lines.append(WeightComparison(f"{name} (not in the checkpoint)", kind, float("inf")))
    if precision == "int8" and not any(line.stored_as == "int8" for line in lines):
        lines.append(WeightComparison("all weights", "float32, but the contract says int8", float("inf")))
    return lines


def _worst(kind: str, value: Array, step: Array | None, expected: Array, steps: int) -> float:
    if step is None:
        allowed = np.abs(expected) * _RELATIVE[kind] + _ABSOLUTE[kind]
    else:
        # A step as fine as its bits allow for its output channel: a coarser one would explain any difference.
        largest = np.abs(expected).reshape(len(expected), -1).max(axis=1).reshape(-1, *[1] * (expected.ndim - 1))
        allowed = np.minimum(step, largest / steps) / 2.0 + _ABSOLUTE["float32"]
    worst = float((np.abs(value - expected) / allowed).max()) / _SLACK
    return worst if np.isfinite(worst) else float("inf")


def _most_steps(stored: Iterable[tuple[str, Array, Array | None]]) -> int:
    quantised = [np.abs(value / step).max() for _, value, step in stored if step is not None and step.max() > 0.0]
    return _REDUCED_STEPS - 1 if quantised and max(quantised) < _REDUCED_STEPS + 0.5 else _STEPS


def weights_in_graph(model: ModelProto, weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """The checkpoint's weights, as deployed and unrounded, by their names in a graph."""
    names = {item.name for item in model.graph.initializer}
    deployed = deployed_weights(weights)
    return {key: array for name, array in deployed.items() for key in _graph_names(name) if key in names}


def _graph_names(name: str) -> tuple[str, str]:
    """What a weight may be called in a graph: the float16 wrapper adds a level to the names of convolutions."""
    stem, last = name.rsplit(".", 1)
    return f"{_PREFIX}{name}", f"{_PREFIX}{stem}.conv.{last}"


def deployed_weights(weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """The checkpoint's weights as the rewritten network holds them, in float64: without SCE, upsampling folded.

    The fold is computed here tap by tap from its definition, not by the rewrite that it is to check.
    """
    deployed: dict[str, Array] = {}
    for name, value in weights.items():
        if name.startswith("self_content."):
            continue
        array = np.asarray(value, dtype=np.float64)
        if name.startswith("decoder.up.") and name.endswith("conv.weight"):
            array = _folded(array)
        elif name.startswith("decoder.up.") and name.endswith("conv.bias"):
            array = np.repeat(array, 4)
        deployed[name] = array
    return deployed


def _folded(weight: Array) -> Array:
    """Tap (k, ...) of output pixel (2i + a, ...) reads upsampled pixel 2i + a + k - 2, which is low-resolution pixel
    i + floor((a + k - 2) / 2): tap floor(...) + 1 of the folded 3x3 kernel of channel (o, a, b)."""
    channels_out, channels_in = weight.shape[:2]
    folded = np.zeros((channels_out, 2, 2, channels_in, 3, 3))
    for a, b, row, column in np.ndindex(2, 2, 5, 5):
        folded[:, a, b, :, (a + row - 2) // 2 + 1, (b + column - 2) // 2 + 1] += weight[:, :, row, column]
    return folded.reshape(4 * channels_out, channels_in, 3, 3)


def _read(model: ModelProto) -> set[str]:
    """Names of the stored arrays that convolutions and linear layers read as weight or bias, and of any other tensor
    that they read there."""
    producers = {name: node for node in model.graph.node for name in node.output}
    names: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            for name in node.input[1:]:
                source = producers.get(name)
                if source is not None and source.op_type == "DequantizeLinear":
                    name = source.input[0].removesuffix("_quantized")
                if name:
                    names.add(name)
    return names


def _stored(model: ModelProto) -> dict[str, tuple[str, Array, Array | None]]:
    """Float values of the initialisers by name: kind, values, and for quantised ones the size of a step."""
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    stored: dict[str, tuple[str, Array, Array | None]] = {
        name: (array.dtype.name, array.astype(np.float64), None)
        for name, array in arrays.items()
        if array.dtype in (np.float32, np.float16)
    }
    for node in model.graph.node:
        if node.op_type not in ("DequantizeLinear", "QuantizeLinear"):
            continue
        for scale_or_zero in node.input[1:]:
            stored.pop(scale_or_zero, None)
        if node.op_type == "QuantizeLinear" or node.input[0] not in arrays:
            continue
        values, scale = arrays[node.input[0]].astype(np.float64), arrays[node.input[1]].astype(np.float64)
        zero = arrays[node.input[2]].astype(np.float64) if len(node.input) > 2 else np.zeros(())
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if scale.ndim:
            shape = [1] * values.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), np.broadcast_to(zero, scale.shape).reshape(shape)
        name = node.input[0].removesuffix("_quantized")
        stored[name] = ("int8", (values - zero) * scale, np.broadcast_to(scale, values.shape))
    return stored
