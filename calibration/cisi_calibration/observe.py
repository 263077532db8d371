"""Activation ranges of a float32 graph over photographs with holes, one picture at a time."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import ModelProto, TensorProto, helper
from tqdm import tqdm

from cisi_runtime.errors import DataError
from cisi_runtime.masks import random_hole
from cisi_runtime.pictures import check_picture, find_pictures, read_square

_PICTURE_SIZE = 256
_MOST_PICTURES = 100
# Fewer say little about the ranges of a trained network.
_FEWEST_PICTURES = 8

Feeds = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.bool_]], dict[str, npt.NDArray[np.generic]]]


@dataclasses.dataclass
class MinMaxObserver:
    """Smallest and largest value that one tensor has taken; memory does not grow with the number of pictures."""

    lowest: float = float("inf")
    highest: float = float("-inf")

    def update(self, lowest: float, highest: float) -> None:
        """Take in the extremes of one more picture."""
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)


@dataclasses.dataclass(frozen=True)
class RangeTable:
    """Calibration ranges: tensor name to (lowest, highest), over `pictures` pictures."""

    pictures: int
    ranges: dict[str, tuple[float, float]]


def calibration_pictures(folder: Path, seed: int = 0) -> list[Path]:
    """Up to 100 photographs below a folder, drawn by the seed. Raises DataError for fewer than 8, and
    PictureError for one that cannot be read: ranges must not depend on pictures left out in silence."""
    paths = find_pictures(folder)
    if len(paths) < _FEWEST_PICTURES:
        raise DataError(f"{folder}: {len(paths)} pictures, expected {_FEWEST_PICTURES} or more to calibrate with")
    order = np.random.default_rng(seed).permutation(len(paths))
    drawn = [paths[index] for index in order[:_MOST_PICTURES]]
    for path in drawn:
        check_picture(path)
    return drawn


def observe_ranges(model: ModelProto, tensors: Iterable[str], pictures: list[Path], feeds: Feeds) -> RangeTable:
    """Run every picture (256x256, with a training hole of its own) through the graph and watch the named tensors.

    `feeds` turns image uint8 `[1, H, W, 3]` and hole mask bool `[1, H, W]` into the graph's inputs. The reductions are
    made inside the graph, so that only two numbers a tensor come out of it. Raises PictureError when a picture
    cannot be read.
    """
    observers = {name: MinMaxObserver() for name in tensors}
    watched, outputs = _with_extremes(model, list(observers))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for path in tqdm(pictures, desc="calibrating", unit="image", mininterval=1.0):
        crop = read_square(path, _PICTURE_SIZE)
        rng = np.random.default_rng(list(hashlib.sha256(crop.tobytes()).digest()))
        hole_mask = random_hole(_PICTURE_SIZE, _PICTURE_SIZE, rng)
        extremes = session.run(outputs, feeds(crop[None], hole_mask[None]))
        for index, observer in enumerate(observers.values()):
            observer.update(float(extremes[2 * index]), float(extremes[2 * index + 1]))
    return RangeTable(len(pictures), {name: (seen.lowest, seen.highest) for name, seen in observers.items()})


def _with_extremes(model: ModelProto, tensors: list[str]) -> tuple[ModelProto, list[str]]:
    copy = ModelProto()
    copy.CopyFrom(model)
    outputs: list[str] = []
    for name in tensors:
        for operator in ("ReduceMin", "ReduceMax"):
            output = f"{name}/{operator}"
            copy.graph.node.append(helper.make_node(operator, [name], [output], keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, []))
            outputs.append(output)
    return copy, outputs
