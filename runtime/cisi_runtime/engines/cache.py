"""Engines that were built once are not built again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.engines.sidecar import Sidecar, load_engine, sidecar_path
from cisi_runtime.errors import EngineError
from cisi_runtime.files import make_folder, whole_file

# Counted up when `worker` builds another engine from the same order.
_BUILDER = 1


def cache_folder() -> Path:
    """Where engines are kept: `$CISI_CACHE`, else `cisi-net` in the user's folder for caches. Anything in it may be
    deleted at any time."""
    given = os.environ.get("CISI_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cisi-net"


def cache_key(graph_sha256: str, options: BuildOptions, version: str, gpu: str) -> str:
    """Of all that an engine depends on; 32 hexadecimal digits. version: of the installed TensorRT; gpu: the card's name
    and driver where it builds for the card of this machine, else empty."""
    parts = {
        "builder": _BUILDER,
        "graph": graph_sha256,
        "options": dataclasses.asdict(options),
        "version": version,
        "gpu": gpu,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cached(key: str) -> tuple[bytes, Sidecar] | None:
    """The engine of a key with its sidecar, None when there is none. Raises EngineError for a damaged entry."""
    path = _entry(key)
    # The sidecar is written last: without it an entry is not there.
    return load_engine(path) if sidecar_path(path).is_file() else None


def keep(key: str, engine: bytes, sidecar: Sidecar) -> None:
    """Put an engine into the cache."""
    path = _entry(key)
    make_folder(path.parent)
    write_engine(path, engine, sidecar)


def write_engine(path: Path, engine: bytes, sidecar: Sidecar) -> None:
    """An engine and its sidecar, each whole; what stood there before is replaced. The old sidecar goes first, so that
    no moment has an engine beside a sidecar of another."""
    if sidecar.engine_bytes != len(engine):
        raise EngineError(f"{path}: the sidecar is of another engine")
    with whole_file(path) as temporary:
        temporary.write_bytes(engine)
        sidecar_path(path).unlink(missing_ok=True)
    sidecar.save(path)


def _entry(key: str) -> Path:
    return cache_folder() / "engines" / f"{key}.engine"
