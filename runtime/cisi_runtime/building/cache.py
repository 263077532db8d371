"""The engine cache: what was built once is not built again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.engines.sidecar import Sidecar, file_sha256, load_engine, sidecar_path
from cisi_runtime.errors import EngineError
from cisi_runtime.files import atomic_files, cache_folder, make_private_folder

# Counted up when `worker` builds another engine from the same order.
_BUILDER_REVISION = 1


def cache_key(graph_sha256: str, options: BuildOptions, version: str, gpu: str) -> str:
    """32 hexadecimal digits over everything that an engine depends on.

    version: of the installed TensorRT.
    gpu: the card's name and driver where it is built for the card of this machine, else empty.
    """
    parts = {
        "builder": _BUILDER_REVISION,
        "graph": graph_sha256,
        "options": dataclasses.asdict(options),
        "version": version,
        "gpu": gpu,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cached_engine(key: str) -> tuple[bytes, Sidecar] | None:
    """The engine of a key with its sidecar, None when there is none.

    Raises EngineError for a damaged entry, OutputError when the folder belongs to another user.
    """
    path = _entry(key)
    # The sidecar is written last: without it the entry does not exist.
    if not sidecar_path(path).is_file():
        return None
    make_private_folder(path.parent)
    return load_engine(path)


def store_engine(key: str, engine: bytes, sidecar: Sidecar) -> None:
    """Put an engine into the cache. Raises OutputError."""
    path = _entry(key)
    make_private_folder(path.parent)
    write_engine(path, engine, sidecar)


def write_engine(path: Path, engine: bytes, sidecar: Sidecar) -> None:
    """Write an engine and its sidecar, replacing what was there.

    Both are on the disk before the first of them takes its name. A process that ends between the two leaves the
    sidecar of the old engine, which `load_engine` refuses. Raises OutputError, and EngineError for a sidecar of another
    engine.
    """
    if sidecar.engine_sha256 != file_sha256(engine):
        raise EngineError(f"{path}: the sidecar is of another engine")
    with atomic_files(path, sidecar_path(path)) as (engine_file, sidecar_file):
        engine_file.write_bytes(engine)
        sidecar_file.write_text(sidecar.to_json())


def _entry(key: str) -> Path:
    return cache_folder() / "engines" / f"{key}.engine"
