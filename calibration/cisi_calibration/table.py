"""Calibration ranges as a small file: observed once, read by people, reused for both targets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper
from tqdm import tqdm

from cisi_calibration.convolutions import candidates
from cisi_calibration.defaults import METHODS
from cisi_calibration.histogram import Histogram, asymmetric_range, symmetric_range
from cisi_calibration.metadata import contract_of
from cisi_calibration.pictures import Photographs, picture_and_hole
from cisi_runtime.backends.base import graph_inputs
from cisi_runtime.errors import DataError, GraphError
from cisi_runtime.files import whole_file

_FORMAT = "cisi-net calibration ranges"
_REVISION = 1
_LOG_ERRORS = 3


@dataclasses.dataclass(frozen=True)
class Range:
    """Of one tensor: `uint8`, lowest and highest value of 256 levels, zero among them; `int8`, largest absolute value
    of the 255 levels from -127 to 127."""

    uint8: tuple[float, float]
    int8: float


@dataclasses.dataclass(frozen=True)
class RangeTable:
    """Ranges of every candidate's input and output, by "MODULE input" and "MODULE output".

    weights_sha256: of the graph's contract, so that one table serves both of its lowerings and no other network.
    pictures_sha256: see `Photographs`.
    """

    weights_sha256: str
    method: str
    images: int
    pictures_sha256: str
    ranges: dict[str, Range]

    def to_json(self) -> str:
        """Readable text; the same table gives the same bytes."""
        header = {"format": _FORMAT, "revision": _REVISION, "weights_sha256": self.weights_sha256}
        header |= {"method": self.method, "images": self.images, "pictures_sha256": self.pictures_sha256}
        lines = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(dataclasses.asdict(entry))}" for name, entry in self.ranges.items()
        )
        start = json.dumps(header, indent=1)[:-2]
        return f'{start},\n "ranges": {{\n{lines}\n }}\n}}\n'

    def save(self, path: Path) -> None:
        """Whole or not at all. Raises OutputError."""
        with whole_file(path) as temporary:
            temporary.write_text(self.to_json())


def load_table(path: Path) -> RangeTable:
    """Raises GraphError for a file that is missing, damaged, or of a newer revision."""
    try:
        values = json.loads(path.read_text())
        if values["format"] != _FORMAT:
            raise KeyError("format")
        if values["revision"] > _REVISION:
            newer = f"revision {values['revision']} is newer than {_REVISION}"
            raise GraphError(f"{path}: {newer}; install a newer cisi-net")
        ranges = {
            str(name): Range((float(entry["uint8"][0]), float(entry["uint8"][1])), float(entry["int8"]))
            for name, entry in values["ranges"].items()
        }
        for entry in ranges.values():
            ends = (*entry.uint8, entry.int8)
            if not (np.isfinite(ends).all() and ends[0] <= 0.0 <= ends[1] and entry.int8 >= 0.0):
                raise ValueError("a range is not one")
        origin = (str(values["weights_sha256"]), str(values["method"]), int(values["images"]))
        return RangeTable(*origin, str(values["pictures_sha256"]), ranges)
    except FileNotFoundError as error:
        raise GraphError(f"{path}: no such file, expected a table that cisi-calibrate wrote") from error
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise GraphError(f"{path}: not a table of calibration ranges, or damaged") from error


def check_table(path: Path, table: RangeTable, model: ModelProto) -> None:
    """Raise GraphError when a table was made for other weights, or lacks a tensor of this graph."""
    if table.weights_sha256 != contract_of(model).weights_sha256:
        raise GraphError(f"{path}: was made for another graph (the hashes of the weights differ)")
    missing = [name for name in observed_tensors(model) if name not in table.ranges]
    if missing:
        raise GraphError(f"{path}: has no range for {missing[0]}")


def observed_tensors(model: ModelProto) -> dict[str, str]:
    """What a table holds, by the names of the tensors in this graph: both sides of every convolution that may become
    INT8 on any target.

    Where a ReLU alone reads the output, maybe behind a rearrangement, what counts is what the ReLU lets through: all
    256 levels go to that, and the clipping at zero is the ReLU's own.
    """
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    tensors: dict[str, str] = {}
    for name, node in candidates(model, "cpu").items():
        output = node.output[0]
        reader = readers[output][0]
        if reader.op_type == "DepthToSpace" and len(readers[output]) == 1:
            reader = readers[reader.output[0]][0]
        if reader.op_type == "Relu" and len(readers[reader.input[0]]) == 1:
            output = reader.output[0]
        tensors[f"{name} input"], tensors[f"{name} output"] = node.input[0], output
    return tensors


def observe(model: ModelProto, photographs: Photographs, method: str) -> RangeTable:
    """Run every picture (256x256, with a training hole of its own) through a float32 graph and watch both sides of its
    convolutions. Raises PictureError for one that cannot be read, DataError for activations that are not finite."""
    assert method in METHODS
    histograms = observe_histograms(model, photographs.ranges)
    return read_ranges(model, histograms, method, photographs)


def observe_histograms(
    model: ModelProto, pictures: Sequence[Path], before: dict[str, Histogram] | None = None
) -> dict[str, Histogram]:
    """By tensor of the graph; a tensor that two convolutions read is watched once. before: what other pictures gave,
    to go on from (and change)."""
    contract = contract_of(model)
    tensors = list(dict.fromkeys(observed_tensors(model).values()))
    session = _session_with_outputs(model, tensors)
    histograms = before or {name: Histogram() for name in tensors}
    for path in tqdm(pictures, desc="calibrating", unit="image", mininterval=1.0):
        image, hole = picture_and_hole(path)
        values = session.run(tensors, graph_inputs(contract, image[None], hole[None]))
        for name, value in zip(tensors, values, strict=True):
            try:
                histograms[name].update(value)
            except ValueError as error:
                raise DataError(f"{path}: gives activations that are not finite in {name}") from error
    return histograms


def read_ranges(
    model: ModelProto, histograms: dict[str, Histogram], method: str, photographs: Photographs
) -> RangeTable:
    """The table that a method reads off histograms."""
    read = {
        tensor: Range(
            tuple(float(np.float32(end)) for end in asymmetric_range(seen, method)),  # type: ignore[arg-type]
            float(np.float32(symmetric_range(seen, method))),
        )
        for tensor, seen in histograms.items()
    }
    return RangeTable(
        contract_of(model).weights_sha256,
        method,
        len(photographs.ranges),
        photographs.sha256,
        {name: read[tensor] for name, tensor in observed_tensors(model).items()},
    )


def _session_with_outputs(model: ModelProto, tensors: list[str]) -> onnxruntime.InferenceSession:
    watched = ModelProto()
    watched.CopyFrom(model)
    for name in tensors:
        watched.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS
    # Every tensor that is watched lives until the end of a run anyway; an arena would keep a second copy of them.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
