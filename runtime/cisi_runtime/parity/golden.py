"""Golden files: inputs with the reference network's float64 results, so that parity can be checked without PyTorch."""

from __future__ import annotations

import dataclasses
import json
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cisi_runtime.errors import GraphError
from cisi_runtime.files import atomic_file

MAX_CASES = 12
MAX_BYTES = 10_000_000
_FORMAT = "cisi-net golden file"
_GRAPH_SUFFIX = re.compile(r"(\.tensor)?(\.fp16|\.tensorrt|\.int8\.cpu|\.int8\.tensorrt)?\.onnx$")
_DAMAGE = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)
_ARRAYS = ("image", "hole_mask", "completed")


@dataclasses.dataclass(frozen=True)
class GoldenCase:
    """One batch of inputs with the reference's result.

    name: unique within the file.
    kind: "natural" looks like photographs. "flat" is one colour for the network, so that its first norms have only
        rounding errors to normalise. "noise" has other statistics, or a hole too small for any.
    image: uint8 `[N, H, W, 3]`.
    hole_mask: bool `[N, H, W]`, True = hole.
    completed: float32 `[N, 3, H, W]` in [-1, 1], composited.
    """

    name: str
    kind: str
    image: npt.NDArray[np.uint8]
    hole_mask: npt.NDArray[np.bool_]
    completed: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Golden:
    """The cases of one set of weights. weights_sha256: as in the contract."""

    weights_sha256: str
    cases: tuple[GoldenCase, ...]


def within_size_limit(golden: Golden) -> Golden:
    """The first cases that together stay below 10 MB uncompressed; at least one."""
    sizes = np.cumsum([sum(getattr(case, name).nbytes for name in _ARRAYS) for case in golden.cases])
    return dataclasses.replace(golden, cases=golden.cases[: max(1, int((sizes <= MAX_BYTES).sum()))])


def golden_path(graph: Path) -> Path:
    """Where a graph's golden file lies: `best.golden.npz` beside `best.onnx`, `best.fp16.onnx`, ..."""
    return graph.with_name(_GRAPH_SUFFIX.sub("", graph.name) + ".golden.npz")


def save_golden(path: Path, golden: Golden) -> None:
    """Write a golden file. Raises GraphError for more than 12 cases or 10 MB, OutputError."""
    if len(golden.cases) > MAX_CASES:
        raise GraphError(f"{path}: {len(golden.cases)} golden cases, expected at most {MAX_CASES}")
    header = {
        "format": _FORMAT,
        "weights_sha256": golden.weights_sha256,
        "cases": {case.name: {"kind": case.kind} for case in golden.cases},
    }
    arrays = {f"{case.name}/{name}": getattr(case, name) for case in golden.cases for name in _ARRAYS}
    with atomic_file(path) as temporary:
        np.savez_compressed(temporary, header=np.array(json.dumps(header)), **arrays)
        size = temporary.stat().st_size
        if size > MAX_BYTES:
            raise GraphError(f"{path}: the golden file has {size} bytes, expected at most {MAX_BYTES}")


def load_golden(path: Path) -> Golden:
    """Read a golden file; nothing in it is executed. Raises GraphError for one that is missing, damaged or foreign."""
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header.get("format") != _FORMAT:
                raise GraphError(f"{path}: not a golden file, expected one written by cisi-export")
            cases = tuple(
                GoldenCase(name, str(about["kind"]), *(file[f"{name}/{array}"] for array in _ARRAYS))
                for name, about in header["cases"].items()
            )
            if not 1 <= len(cases) <= MAX_CASES:
                raise GraphError(f"{path}: holds {len(cases)} golden cases, expected 1 to {MAX_CASES}")
            for case in cases:
                _check_case(path, case)
            return Golden(header["weights_sha256"], cases)
    except FileNotFoundError as error:
        raise GraphError(f"{path}: no such file; cisi-export writes it beside the graph") from error
    except _DAMAGE as error:
        raise GraphError(f"{path}: not a golden file, or damaged: {error}") from error


def _check_case(path: Path, case: GoldenCase) -> None:
    batch, height, width = case.hole_mask.shape
    actual = [(array.dtype, array.shape) for array in (case.image, case.hole_mask, case.completed)]
    expected = [
        (np.dtype(np.uint8), (batch, height, width, 3)),
        (np.dtype(np.bool_), (batch, height, width)),
        (np.dtype(np.float32), (batch, 3, height, width)),
    ]
    if actual != expected:
        raise GraphError(f"{path}: not a golden file, or damaged: case {case.name} is {actual}, expected {expected}")
