"""Calibration ranges as a small file: observed once, readable, used for both targets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from onnx import ModelProto

from cisi_calibration.convolutions import PIXEL_READERS
from cisi_calibration.defaults import METHODS
from cisi_calibration.histogram import Histogram, asymmetric_range, symmetric_range
from cisi_calibration.model_contract import contract_of
from cisi_calibration.observation import observe_histograms, observed_tensors
from cisi_calibration.photographs import Photographs
from cisi_runtime.errors import GraphError
from cisi_runtime.files import atomic_file
from cisi_runtime.strict_json import check_revision, convert, parse_json, read_json

_FORMAT = "cisi-net calibration ranges"
_REVISION = 1


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of one tensor.

    uint8: lowest and highest value of 256 levels, zero among them.
    int8: largest absolute value of the 255 levels from -127 to 127.
    """

    uint8: tuple[Annotated[float, Meta(le=0.0)], Annotated[float, Meta(ge=0.0)]]
    int8: Annotated[float, Meta(ge=0.0)]

    def __post_init__(self) -> None:
        if not np.isfinite((*self.uint8, self.int8)).all():
            raise ValueError("a range is not finite")


# Steps of 1/127, so that the mask's 0 and 1 and the hole's 0 are exact. Pixels move by half a level at most.
_PIXEL_RANGE = Range((-128 / 127, 1.0), 1.0)


@dataclasses.dataclass(frozen=True)
class RangeTable:
    """Ranges of every candidate's input and output.

    weights_sha256: of the graph's contract. One table serves both lowerings of a network and no other network.
    method: how the ranges were read off histograms.
    images: number of photographs.
    pictures_sha256: over the photographs; see `Photographs`.
    ranges: by "MODULE input" and "MODULE output".
    """

    weights_sha256: str
    method: str
    images: Annotated[int, Meta(ge=0)]
    pictures_sha256: str
    ranges: dict[str, Range]

    def to_json(self) -> str:
        """Readable text, a line for each tensor. The same table gives the same bytes."""
        header = {"format": _FORMAT, "revision": _REVISION, "weights_sha256": self.weights_sha256}
        header |= {"method": self.method, "images": self.images, "pictures_sha256": self.pictures_sha256}
        lines = ",\n".join(
            f"  {json.dumps(name)}: {json.dumps(dataclasses.asdict(entry))}" for name, entry in self.ranges.items()
        )
        start = json.dumps(header, indent=1)[:-2]
        return f'{start},\n "ranges": {{\n{lines}\n }}\n}}\n'

    def save(self, path: Path) -> None:
        """Write the table. Raises OutputError."""
        with atomic_file(path) as temporary:
            temporary.write_text(self.to_json())


def load_table(path: Path) -> RangeTable:
    """Read and check a table. Raises GraphError for a file that is missing, damaged or of a newer revision."""
    what = f"{path}: not a table of calibration ranges, or damaged"
    try:
        values = read_json(path, what, GraphError)
    except FileNotFoundError as error:
        raise GraphError(f"{path}: no such file, expected a table that cisi-calibrate wrote") from error
    return _table(values, what)


def parse_table(text: str, what: str) -> RangeTable:
    """A table from JSON; `what` begins messages. Raises GraphError."""
    return _table(parse_json(text, what, GraphError), what)


def _table(values: dict[str, Any], what: str) -> RangeTable:
    if values.pop("format", None) != _FORMAT:
        raise GraphError(f"{what}: expected format {_FORMAT!r}")
    check_revision(values, _REVISION, what, GraphError)
    del values["revision"]
    return convert(values, RangeTable, what, GraphError)


def check_table(what: Path | str, table: RangeTable, model: ModelProto, method: str | None = None) -> None:
    """Raise GraphError when a table was made for other weights, by another method (None: any will do), or lacks a
    tensor of this graph. what: for messages."""
    if table.weights_sha256 != contract_of(model).weights_sha256:
        raise GraphError(f"{what}: was made for another graph (the hashes of the weights differ)")
    missing = [name for name in observed_tensors(model) if name not in table.ranges]
    if missing:
        raise GraphError(f"{what}: has no range for {missing[0]}")
    if method not in (None, table.method):
        raise GraphError(f"{what}: is of method {table.method}, expected {method} as --method says")


def observe(model: ModelProto, photographs: Photographs, method: str) -> RangeTable:
    """The ranges of a float32 graph on the photographs that give ranges.

    Raises PictureError for a photograph that cannot be read, DataError for activations that are not finite.
    """
    assert method in METHODS
    return read_ranges(model, observe_histograms(model, photographs.ranges), method, photographs)


def read_ranges(
    model: ModelProto, histograms: dict[str, Histogram], method: str, photographs: Photographs
) -> RangeTable:
    """The table that a method reads off histograms. The range of pixels is known, not read off."""
    ranges = {tensor: _range(histogram, method) for tensor, histogram in histograms.items()}
    tensors = observed_tensors(model)
    ranges |= {tensors[f"{name} input"]: _PIXEL_RANGE for name in PIXEL_READERS}
    return RangeTable(
        contract_of(model).weights_sha256,
        method,
        len(photographs.ranges),
        photographs.sha256,
        {name: ranges[tensor] for name, tensor in tensors.items()},
    )


def _range(histogram: Histogram, method: str) -> Range:
    lowest, highest = asymmetric_range(histogram, method)
    return Range((_as_float32(lowest), _as_float32(highest)), _as_float32(symmetric_range(histogram, method)))


def _as_float32(value: Any) -> float:
    return float(np.float32(value))
