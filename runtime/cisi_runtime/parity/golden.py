"""Golden files: inputs with the reference network's float64 results, so that parity can be checked without PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from msgspec import Meta

from cisi_runtime.codec import decode_pixels
from cisi_runtime.errors import GraphError
from cisi_runtime.files import atomic_files
from cisi_runtime.strict_json import check_revision, convert, parse_json

MAX_CASES = 12
MAX_BYTES = 10_000_000
# Of the arrays and the header of a file, unpacked.
_MAX_UNPACKED_BYTES = 100_000_000
_MAX_HEADER_BYTES = 20_000
_FORMAT = "cisi-net golden file"
_REVISION = 2
_GRAPH_SUFFIX = re.compile(r"(\.tensor)?(\.fp16|\.tensorrt|\.int8\.cpu|\.int8\.tensorrt)?\.onnx$")
_DAMAGE = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError, MemoryError, SyntaxError),
    *(NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
KINDS = ("natural", "flat", "noise")
# How far two computations of the same reference may be apart, on [-1, 1]: float64 rounds at 1e-16, a network amplifies
# that to 1e-11, and results are stored as float32.
_SAME_REFERENCE = 1e-6
# By which factor two CPUs' errors in float32 may differ: their sums have other orders.
_SAME_ERROR = 10.0


@dataclasses.dataclass(frozen=True)
class GoldenCase:
    """One batch of inputs with the reference's result.

    name: unique within the file.
    kind: "natural" looks like photographs. "flat" is one colour for the network, so that its first norms have only
        rounding errors to normalise. "noise" has other statistics, or a hole too small for any.
    image: uint8 `[N, H, W, 3]`.
    hole_mask: bool `[N, H, W]`, True = hole.
    completed: float32 `[N, 3, H, W]` in [-1, 1], composited.
    float32_error: largest difference from it, on [-1, 1], of the same network run in float32 by PyTorch: what the
        arithmetic alone does to this case with these weights.
    """

    name: str
    kind: str
    image: npt.NDArray[np.uint8]
    hole_mask: npt.NDArray[np.bool_]
    completed: npt.NDArray[np.float32]
    float32_error: float

    @property
    def hole_values(self) -> npt.NDArray[np.float32]:
        """What the reference made of the hole: float32 `[3, hole pixels of all pictures]`."""
        return np.moveaxis(self.completed, 1, 0)[:, self.hole_mask]


@dataclasses.dataclass(frozen=True)
class Golden:
    """The cases of one set of weights. weights_sha256: as in the contract."""

    weights_sha256: str
    cases: tuple[GoldenCase, ...]

    @property
    def sha256(self) -> str:
        """Hash over all that a file of these cases holds."""
        digest = hashlib.sha256(json.dumps(_header(self)).encode())
        for array in _arrays(self).values():
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.tobytes())
        return digest.hexdigest()

    def has_inputs_of(self, other: Golden) -> bool:
        """Whether both show a network the same pictures with the same holes."""

        def inputs(golden: Golden) -> list[tuple[Any, ...]]:
            return [
                (case.name, case.kind, case.image.shape, case.image.tobytes(), case.hole_mask.tobytes())
                for case in golden.cases
            ]

        return inputs(self) == inputs(other)

    def is_same_but_for_rounding(self, other: Golden) -> bool:
        """Whether both are the same cases of the same weights. Two machines round the reference differently."""

        if self.weights_sha256 != other.weights_sha256 or not self.has_inputs_of(other):
            return False
        return all(
            np.abs(a.hole_values - b.hole_values).max(initial=0.0) <= _SAME_REFERENCE
            and max(a.float32_error, b.float32_error) <= _SAME_ERROR * max(min(a.float32_error, b.float32_error), 1e-7)
            for a, b in zip(self.cases, other.cases, strict=True)
        )


def within_size_limit(golden: Golden) -> Golden:
    """The first cases that together stay below 10 MB uncompressed; at least one."""
    sizes = np.cumsum([case.image.nbytes + case.hole_mask.size + case.hole_values.nbytes for case in golden.cases])
    return dataclasses.replace(golden, cases=golden.cases[: max(1, int((sizes <= MAX_BYTES).sum()))])


def golden_path(graph: Path) -> Path:
    """Where a graph's golden file lies: `best.golden.npz` beside `best.onnx`, `best.fp16.onnx`, ..."""
    return graph.with_name(_GRAPH_SUFFIX.sub("", graph.name) + ".golden.npz")


def ranges_path(graph: Path) -> Path:
    """Where the range table of an INT8 graph lies: `best.ranges.json` beside `best.int8.cpu.onnx`."""
    return graph.with_name(golden_path(graph).name.removesuffix(".golden.npz") + ".ranges.json")


def save_golden(path: Path, golden: Golden, others: Callable[[Golden], Mapping[Path, bytes]] = lambda _: {}) -> Golden:
    """Write a golden file, unless there is one of the same cases but for rounding: other graphs may name it. Returns
    what the file holds.

    others: files that are written with it or not at all, such as the graph that names it, by what it holds.

    Raises GraphError for more than 12 cases or 10 MB, and where the file holds other cases of the same weights;
    OutputError.
    """
    if len(golden.cases) > MAX_CASES:
        raise GraphError(f"{path}: {len(golden.cases)} golden cases, expected at most {MAX_CASES}")
    existing = golden_in_place(path, golden)
    contents = {} if existing is not None else {path: _file_bytes(path, golden)}
    held = existing or golden
    contents |= others(held)
    if contents:
        with atomic_files(*contents) as temporaries:
            for temporary, content in zip(temporaries, contents.values(), strict=True):
                temporary.write_bytes(content)
    return held


def _file_bytes(path: Path, golden: Golden) -> bytes:
    parts: dict[str, Any] = {"header": np.array(json.dumps(_header(golden))), **_arrays(golden)}
    file = io.BytesIO()
    np.savez_compressed(file, **parts)
    size = file.getbuffer().nbytes
    if size > MAX_BYTES:
        raise GraphError(f"{path}: the golden file has {size} bytes, expected at most {MAX_BYTES}")
    return file.getvalue()


def golden_in_place(path: Path, golden: Golden) -> Golden | None:
    """The golden file of another graph that does for this one too. None where there is none, or one that may be
    replaced. Raises GraphError for one that may not: it holds other cases of the same weights."""
    try:
        existing = load_golden(path)
    except GraphError:
        return None  # none, or one of another version or of no use
    if existing.is_same_but_for_rounding(golden):
        return existing
    if existing.weights_sha256 == golden.weights_sha256 and not existing.has_inputs_of(golden):
        raise GraphError(
            f"{path}: holds other cases of the same weights, for graphs of other sizes: expected another name for "
            "this graph, or that file removed"
        )
    return None


def load_golden(path: Path) -> Golden:
    """Read a golden file; nothing in it is executed. Raises GraphError for one that is missing, damaged or foreign."""
    what = f"{path}: not a golden file, or damaged"
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            header = _read_header(str(file["header"]), what)
            arrays = {name: file[name] for name in file.files if name != "header"}
        return _golden(header, arrays, what)
    except FileNotFoundError as error:
        raise GraphError(f"{path}: no such file; cisi-export writes it beside the graph") from error
    except _DAMAGE as error:
        raise GraphError(f"{what}: {error}") from error


@dataclasses.dataclass(frozen=True)
class _CaseHeader:
    name: str
    kind: str
    float32_error: Annotated[float, Meta(ge=0.0, le=2.0)]


@dataclasses.dataclass(frozen=True)
class _Header:
    format: str
    revision: int
    weights_sha256: str
    cases: tuple[_CaseHeader, ...]


def _header(golden: Golden) -> dict[str, Any]:
    cases = tuple(_CaseHeader(case.name, case.kind, case.float32_error) for case in golden.cases)
    return dataclasses.asdict(_Header(_FORMAT, _REVISION, golden.weights_sha256, cases))


def _arrays(golden: Golden) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file. Known pixels are those of the image, so that the hole is all that is stored of a result."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for case in golden.cases:
        arrays[f"{case.name}/image"] = case.image
        arrays[f"{case.name}/hole_mask"] = case.hole_mask
        arrays[f"{case.name}/hole_values"] = case.hole_values
    return arrays


def _check_sizes(path: Path) -> None:
    """Raise ValueError for a file that would take much memory: a few bytes of an archive can unpack to gigabytes."""
    if path.stat().st_size > 2 * MAX_BYTES:
        raise ValueError(f"has {path.stat().st_size} bytes, expected at most {MAX_BYTES}")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        unpacked = sum(member.file_size for member in members)
        if unpacked > _MAX_UNPACKED_BYTES or len(members) > 1 + 3 * MAX_CASES:
            raise ValueError(f"would unpack to {unpacked} bytes in {len(members)} parts")


def _read_header(text: str, what: str) -> _Header:
    if len(text) > _MAX_HEADER_BYTES:
        raise ValueError(f"its header has {len(text)} characters")
    values = parse_json(text, what, GraphError)
    if values.get("format") != _FORMAT:
        raise GraphError(f"{what}: expected one written by cisi-export")
    if "revision" not in values:
        raise GraphError(f"{what}: it was written before revision {_REVISION}; export the graph again")
    check_revision(values, _REVISION, what, GraphError)
    return convert(values, _Header, what, GraphError)


def _golden(header: _Header, arrays: dict[str, npt.NDArray[Any]], what: str) -> Golden:
    names = [case.name for case in header.cases]
    if not 1 <= len(names) <= MAX_CASES or len(set(names)) < len(names):
        raise GraphError(f"{what}: holds {len(names)} golden cases, expected 1 to {MAX_CASES} of different names")
    expected = {f"{name}/{part}" for name in names for part in ("image", "hole_mask", "hole_values")}
    if set(arrays) != expected:
        raise GraphError(f"{what}: its parts are not those of its cases")
    return Golden(header.weights_sha256, tuple(_case(case, arrays, what) for case in header.cases))


def _case(about: _CaseHeader, arrays: dict[str, npt.NDArray[Any]], what: str) -> GoldenCase:
    if about.kind not in KINDS:
        raise GraphError(f"{what}: case {about.name} is of kind {about.kind}, expected one of {', '.join(KINDS)}")
    image, hole_mask, values = (arrays[f"{about.name}/{part}"] for part in ("image", "hole_mask", "hole_values"))
    batch, height, width = hole_mask.shape
    actual = [(array.dtype, array.shape) for array in (image, hole_mask, values)]
    expected = [
        (np.dtype(np.uint8), (batch, height, width, 3)),
        (np.dtype(np.bool_), (batch, height, width)),
        (np.dtype(np.float32), (3, int(hole_mask.sum()))),
    ]
    if actual != expected or not np.isfinite(values).all() or min(batch, height, width) < 1:
        raise GraphError(f"{what}: case {about.name} is {actual}, expected {expected} and finite")
    completed = decode_pixels(image)
    np.moveaxis(completed, 1, 0)[:, hole_mask] = values
    return GoldenCase(about.name, about.kind, image, hole_mask, completed, about.float32_error)
