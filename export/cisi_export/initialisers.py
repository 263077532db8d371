"""Every stored weight of a graph against the checkpoint's: a small fault hides in the noise of half precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, numpy_helper

from cisi_runtime.parity import WeightComparison

Array = npt.NDArray[np.float64]

_PREFIX = "generator."
# Rounding to the nearest: half a unit in the last place, relative to the weight, and half of the smallest step.
_RELATIVE = {"float32": 2.0**-24, "float16": 2.0**-11}
_ABSOLUTE = {"float32": 2.0**-150, "float16": 2.0**-25}
# Float32 arithmetic on the way (scale times integer) may cost a little more than the rounding itself.
_SLACK = 1.001
# Other constants of a graph (codec, shapes, the ones and zeros of norm nodes) are short or all 0 or all 1.
_MOST_OTHER = 8


def compare_initialisers(model: ModelProto, weights: Mapping[str, npt.NDArray[Any]]) -> list[WeightComparison]:
    """Compare the graph's initialisers with a checkpoint's weights (names as in `Generator.state_dict()`).

    A weight that the graph does not hold fails; so does, as a line of its own, a stored float array that is none of the
    checkpoint's weights and could hide one.
    """
    stored = _stored(model)
    lines: list[WeightComparison] = []
    used: set[str] = set()
    for name, expected in deployed_weights(weights).items():
        # The float16 wrapper adds a level to the names of convolutions.
        stem, last = name.rsplit(".", 1)
        found = next((key for key in (f"{_PREFIX}{name}", f"{_PREFIX}{stem}.conv.{last}") if key in stored), None)
        if found is None:
            lines.append(WeightComparison(name, "missing", float("inf")))
            continue
        used.add(found)
        kind, value, step = stored[found]
        if value.shape != expected.shape:
            lines.append(WeightComparison(name, f"{kind} {list(value.shape)}", float("inf")))
            continue
        allowed = step / 2.0 if step is not None else np.abs(expected) * _RELATIVE[kind] + _ABSOLUTE[kind]
        worst = float((np.abs(value - expected) / allowed).max()) / _SLACK
        lines.append(WeightComparison(name, kind, worst if np.isfinite(worst) else float("inf")))
    for name, (kind, value, _) in stored.items():
        is_plain = value.size <= _MOST_OTHER or bool((value == 0.0).all() or (value == 1.0).all())
        if name not in used and not is_plain:
            lines.append(WeightComparison(f"{name} (not in the checkpoint)", kind, float("inf")))
    return lines


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


def _stored(model: ModelProto) -> dict[str, tuple[str, Array, Array | None]]:
    """Float values of the initialisers by name: kind, values, and for quantised ones the size of a step."""
    arrays = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    stored: dict[str, tuple[str, Array, Array | None]] = {}
    for name, array in arrays.items():
        if array.dtype in (np.float32, np.float16):
            stored[name] = (array.dtype.name, array.astype(np.float64), None)
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in arrays:
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
        for helper in node.input[1:]:
            stored.pop(helper, None)
    return {name: item for name, item in stored.items() if not name.endswith(("_scale", "_zero_point"))}
