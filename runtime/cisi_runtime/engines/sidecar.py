"""What stands beside an engine, in `ENGINE.json`; the engine file itself stays plain: other tools can read it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from cisi_runtime.architecture import check_keys
from cisi_runtime.contract import Contract
from cisi_runtime.engines.audit import Audit
from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.errors import ContractError, EngineError
from cisi_runtime.files import whole_file

REVISION = 1


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """graph: file name of the source graph, with the SHA-256 of its bytes; fixed: batch, height and width that the
    graph was exported for, None where it takes any; version: of the TensorRT that built the engine; gpu, capability:
    of the card that TensorRT built for, empty for TensorRT-RTX; parity: None until the engine itself has been compared
    with the golden file on a GPU, then the verdict in words."""

    contract: Contract
    graph: str
    graph_sha256: str
    fixed: tuple[int | None, int | None, int | None]
    engine_sha256: str
    engine_bytes: int
    options: BuildOptions
    version: str
    gpu: str
    capability: str
    audit: Audit
    seconds: float
    parity: str | None
    revision: int = REVISION

    def to_json(self) -> str:
        """Indented, for people too."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Sidecar:
        """Read and check. Raises EngineError for what is not a sidecar, has an unknown key or a newer revision."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise EngineError(f"not JSON: {error}") from error
        if not isinstance(values, dict) or type(values.get("revision")) is not int or values["revision"] < 1:
            raise EngineError("expected a JSON object with a revision number")
        if values["revision"] > REVISION:
            raise EngineError(
                f"revision {values['revision']} is newer than {REVISION}, the newest known here; install a newer "
                "cisi-net, or build the engine again with cisi-build"
            )
        try:
            check_keys("sidecar", values, cls)
            parts: dict[str, Any] = {
                "contract": Contract.from_json(json.dumps(values["contract"])),
                "options": BuildOptions.from_json(values["options"]),
                "audit": Audit.from_json(values["audit"]),
                "fixed": tuple(values["fixed"]),
            }
        except (ContractError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(f"not a sidecar of this revision: {error}") from error
        return cls(**{**values, **parts})

    def save(self, engine: Path) -> None:
        """Write it beside its engine."""
        with whole_file(sidecar_path(engine)) as temporary:
            temporary.write_text(self.to_json())


def sidecar_path(engine: Path) -> Path:
    """`X.engine` has `X.engine.json`."""
    return engine.with_name(engine.name + ".json")


def load_sidecar(engine: Path) -> Sidecar:
    """The sidecar of an engine file. Raises EngineError."""
    path = sidecar_path(engine)
    if not path.is_file():
        raise EngineError(
            f"{engine}: has no sidecar {path.name} beside it, expected an ONNX graph (.onnx) or an engine written by "
            "cisi-build"
        )
    try:
        return Sidecar.from_json(path.read_text())
    except (EngineError, UnicodeDecodeError) as error:
        raise EngineError(f"{path}: {error}") from error


def load_engine(engine: Path) -> tuple[bytes, Sidecar]:
    """An engine's bytes with their sidecar, checked to belong together. Raises EngineError."""
    if not engine.is_file():
        raise EngineError(f"{engine}: no such file")
    sidecar = load_sidecar(engine)
    data = engine.read_bytes()
    if file_sha256(data) != sidecar.engine_sha256:
        raise EngineError(
            f"{engine}: is damaged, or not the engine that {sidecar_path(engine).name} describes (SHA-256 differs); "
            f"build it again: cisi-build {sidecar.graph}"
        )
    return data, sidecar


def file_sha256(data: bytes) -> str:
    """Of all bytes."""
    return hashlib.sha256(data).hexdigest()
