"""The sidecar of an engine, `ENGINE.json`. The engine file itself gets no header, so other tools can read it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from cisi_runtime.contract import REVISION as CONTRACT_REVISION
from cisi_runtime.contract import Contract
from cisi_runtime.engines.audit import Audit
from cisi_runtime.engines.options import BuildOptions, FixedSides
from cisi_runtime.errors import CisiError, EngineError
from cisi_runtime.strict_json import check_revision, convert, parse_json, read_json

# 2: the optimisation profile is min, opt, max (1: least, usual, most). 3: has golden_sha256.
REVISION = 3

# What engines are called. Others are taken too, where a sidecar is beside them.
ENGINE_SUFFIXES = (".engine", ".plan", ".trt")


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """Where an engine comes from, what it is and where it runs.

    contract: the source graph's.
    graph: file name of the source graph.
    graph_sha256: of the graph's bytes.
    golden_sha256: of the golden cases of the graph's export; see `Golden.sha256`.
    fixed: batch, height and width that the graph was exported for, None where it takes any.
    engine_sha256: of the engine's bytes.
    engine_bytes: size of the engine.
    options: what was built.
    version: of the TensorRT that built it.
    gpu: name of the card that TensorRT built for; empty for TensorRT-RTX.
    capability: compute capability of that card; empty for TensorRT-RTX.
    audit: what precision its convolutions have.
    seconds: how long the build took.
    parity: verdict in words of the comparison with the golden file on a GPU, None before there was one.
    revision: of this file's format.
    """

    contract: Contract
    graph: str
    graph_sha256: str
    golden_sha256: str
    fixed: FixedSides
    engine_sha256: str
    engine_bytes: Annotated[int, Meta(ge=0)]
    options: BuildOptions
    version: str
    gpu: str
    capability: str
    audit: Audit
    seconds: Annotated[float, Meta(ge=0)]
    parity: str | None
    revision: int = REVISION

    def to_json(self) -> str:
        """Indented, for people too."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Sidecar:
        """Read and check. Raises EngineError for what is not a sidecar of this revision, ContractError for its
        contract."""
        return cls.from_dict(parse_json(text, "sidecar", EngineError))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sidecar:
        """As `from_json`, for JSON that has been parsed."""
        check_revision(values, REVISION, "sidecar", EngineError)
        if values["revision"] < REVISION:
            raise EngineError(f"sidecar: revision {values['revision']} is no longer read; build the engine again")
        if isinstance(values.get("contract"), dict):
            check_revision(values["contract"], CONTRACT_REVISION, "sidecar: contract", EngineError)
        sidecar = convert(values, cls, "sidecar", EngineError)
        if sidecar.graph in ("", ".", "..") or set(sidecar.graph) & set("/\\"):
            raise EngineError(f"sidecar: graph is {sidecar.graph!r}, expected the name of a file")
        return sidecar


def sidecar_path(engine: Path) -> Path:
    """`X.engine` has `X.engine.json`."""
    return engine.with_name(engine.name + ".json")


def load_sidecar(engine: Path) -> Sidecar:
    """The sidecar of an engine file. Raises EngineError."""
    path = sidecar_path(engine)
    if not path.is_file():
        if engine.suffix not in ENGINE_SUFFIXES:
            raise EngineError(
                f"{engine}: expected a graph (.onnx), a checkpoint (.pt) or an engine ({', '.join(ENGINE_SUFFIXES)})"
            )
        raise EngineError(
            f"{engine}: was made elsewhere, or has lost {path.name}, which says what it is; expected an engine that "
            "cisi-build made: cisi-build GRAPH.onnx"
        )
    try:
        return Sidecar.from_dict(read_json(path, "sidecar", EngineError))
    except CisiError as error:
        raise EngineError(f"{path}: {error}") from error


def load_engine(engine: Path) -> tuple[bytes, Sidecar]:
    """An engine's bytes and its sidecar, checked to belong together. Raises EngineError."""
    if not engine.is_file():
        raise EngineError(f"{engine}: no such file")
    sidecar = load_sidecar(engine)
    try:
        data = engine.read_bytes()
    except OSError as error:
        raise EngineError(f"{engine}: cannot be read: {error.strerror or error}") from error
    if file_sha256(data) != sidecar.engine_sha256:
        raise EngineError(
            f"{engine}: is damaged, or not the engine that {sidecar_path(engine).name} describes (SHA-256 differs); "
            f"build it again: cisi-build {sidecar.graph}"
        )
    return data, sidecar


def file_sha256(data: bytes) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
