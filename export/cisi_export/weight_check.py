"""Every stored weight of a graph against the checkpoint's: results alone would hide a small fault in rounding noise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, numpy_helper

from cisi_calibration.convolutions import PIXEL_READERS
from cisi_calibration.model_contract import contract_of
from cisi_runtime.parity.verdict import WeightComparison

Array = npt.NDArray[np.float64]

_PREFIX = "generator."
# Rounding to nearest: half a unit in the last place, relative to the weight, and half of the smallest step.
_RELATIVE = {"float32": 2.0**-24, "float16": 2.0**-11}
_ABSOLUTE = {"float32": 2.0**-150, "float16": 2.0**-25}
# Float32 arithmetic (scale times integer) may add a little to the rounding itself.
_SLACK = 1.001
# What weights may be stored as, by the contract's precision and whether they belong to a convolution (else: linear
# layers, biases, scales). In a float16 graph the biases of convolutions are float16 and the style path is float32.
_STORAGE = {
    ("float32", True): {"float32"},
    ("float32", False): {"float32"},
    ("float16", True): {"float16"},
    ("float16", False): {"float16", "float32"},
    ("int8", True): {"int8", "float32", "float16"},
    ("int8", False): {"float32", "float16"},
}
# Largest int8 weights, on either side of zero: 8 bits, or 7 where pixels are read, and where all of a graph stay within
# them (--reduce-range).
_STEPS, _REDUCED_STEPS = 127, 64
# Other constants of a graph (codec, shapes, ones and zeros of norm nodes) are this short, or all 0, or all 1.
_MAX_OTHER = 8


def compare_weights(model: ModelProto, weights: Mapping[str, npt.NDArray[Any]]) -> list[WeightComparison]:
    """Compare what the graph's convolutions and linear layers read with a checkpoint's weights.

    weights: by their names in `Generator.state_dict()`.

    These fail: a weight that no layer reads; a weight stored with less precision than the contract says, or, in a
    float16 graph, a convolution stored with more; a layer that reads anything but a stored weight of that name, for
    instance the result of an operator; another large float array, which could hide a weight.
    """
    precision = contract_of(model).precision
    stored, read_names = _stored(model), _read_names(model)
    comparisons: list[WeightComparison] = []
    used: set[str] = set()
    steps = _quantisation_steps(stored.values())
    for name, expected in deployed_weights(weights, contract_of(model).target).items():
        last = name.rsplit(".", 1)[1]
        graph_name = next((key for key in _graph_names(name) if key in stored), None)
        if graph_name is None:
            comparisons.append(WeightComparison(name, "missing", float("inf")))
            continue
        used.add(graph_name)
        kind, value, step = stored[graph_name]
        is_convolution = expected.ndim == 4
        if value.shape != expected.shape:
            kind, worst = f"{kind} {list(value.shape)}", float("inf")
        elif kind not in _STORAGE[precision, is_convolution]:
            kind, worst = f"{kind} in a graph that says {precision}", float("inf")
        elif graph_name not in read_names and last in ("weight", "bias"):
            kind, worst = f"{kind}, read by no layer", float("inf")
        else:
            is_reduced = name.removesuffix(".weight") in PIXEL_READERS
            worst = _worst(kind, value, step, expected, _REDUCED_STEPS - 1 if is_reduced else steps)
        comparisons.append(WeightComparison(name, kind, worst))
    for name in sorted(read_names - used):
        comparisons.append(WeightComparison(f"{name} (not in the checkpoint)", "read by a layer", float("inf")))
    for name, (kind, value, _) in stored.items():
        is_plain = value.size <= _MAX_OTHER or bool((value == 0.0).all() or (value == 1.0).all())
        if name not in used and name not in read_names and not is_plain:
            comparisons.append(WeightComparison(f"{name} (not in the checkpoint)", kind, float("inf")))
    if precision == "int8" and not any(item.stored_as == "int8" for item in comparisons):
        comparisons.append(WeightComparison("all weights", "float32, but the contract says int8", float("inf")))
    return comparisons


def _worst(kind: str, value: Array, step: Array | None, expected: Array, steps: int) -> float:
    if step is None:
        allowed = np.abs(expected) * _RELATIVE[kind] + _ABSOLUTE[kind]
    else:
        # The step must be as fine as its bits allow for the output channel. A coarser one would explain any difference.
        largest = np.abs(expected).reshape(len(expected), -1).max(axis=1).reshape(-1, *[1] * (expected.ndim - 1))
        allowed = np.minimum(step, largest / steps) / 2.0 + _ABSOLUTE["float32"]
    worst = float((np.abs(value - expected) / allowed).max()) / _SLACK
    return worst if np.isfinite(worst) else float("inf")


def _quantisation_steps(stored: Iterable[tuple[str, Array, Array | None]]) -> int:
    quantised = [np.abs(value / step).max() for _, value, step in stored if step is not None and step.max() > 0.0]
    return _REDUCED_STEPS - 1 if quantised and max(quantised) < _REDUCED_STEPS + 0.5 else _STEPS


def weights_in_graph(model: ModelProto, weights: Mapping[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """The checkpoint's weights, as deployed but unrounded, by their names in a graph."""
    names = {item.name for item in model.graph.initializer}
    deployed = deployed_weights(weights, contract_of(model).target)
    return {key: array for name, array in deployed.items() for key in _graph_names(name) if key in names}


def _graph_names(name: str) -> tuple[str, str]:
    """Possible names of a weight in a graph: the float16 wrapper adds a level to the names of convolutions."""
    stem, last = name.rsplit(".", 1)
    return f"{_PREFIX}{name}", f"{_PREFIX}{stem}.conv.{last}"


def deployed_weights(weights: Mapping[str, npt.NDArray[Any]], target: str) -> dict[str, Array]:
    """The checkpoint's weights as the network rewritten for a target holds them, in float64: without SCE, upsampling
    folded, on CPUs the convolution to RGB at half resolution.

    The folds are computed tap by tap from their definitions, not by the rewrites that this checks.
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
        elif name == "decoder.to_rgb.weight" and target == "cpu":
            name, array = "decoder.to_rgb.conv.weight", _at_half_resolution(array)
        elif name == "decoder.to_rgb.bias" and target == "cpu":
            name, array = "decoder.to_rgb.conv.bias", np.repeat(array, 4)
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


def _at_half_resolution(weight: Array) -> Array:
    """Tap (k, ...) of output pixel (2i - 1 + a, ...) reads pixel 2i + a + k - 4, which is phase (a + k) % 2 of
    low-resolution pixel i - 2 + (a + k) // 2: channel (c, phase, ...) and tap (a + k) // 2 of the 4x4 kernel."""
    channels_out, channels_in = weight.shape[:2]
    folded = np.zeros((channels_out, 2, 2, channels_in, 2, 2, 4, 4))
    for a, b, row, column in np.ndindex(2, 2, 7, 7):
        y, x = a + row, b + column
        folded[:, a, b, :, y % 2, x % 2, y // 2, x // 2] = weight[:, :, row, column]
    return folded.reshape(4 * channels_out, 4 * channels_in, 4, 4)


def _read_names(model: ModelProto) -> set[str]:
    """Names of the tensors that convolutions and linear layers read as weight or bias, stored or not."""
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
        parameters = [arrays.get(tensor) for tensor in node.input[1:]]
        if any(parameter is None for parameter in parameters):
            continue  # computed or left out: no stored weight
        values = arrays[node.input[0]].astype(np.float64)
        scale, zero, *_ = (*(np.asarray(parameter, dtype=np.float64) for parameter in parameters), np.zeros(()))
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if scale.ndim:
            shape = [1] * values.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), np.broadcast_to(zero, scale.shape).reshape(shape)
        name = node.input[0].removesuffix("_quantized")
        stored[name] = ("int8", (values - zero) * scale, np.broadcast_to(scale, values.shape))
    return stored
