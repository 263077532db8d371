"""Which network an `Inpainter` runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import CPU_BACKENDS, SHIPPED_GRAPH, SHIPPED_INT8_GRAPH, open_backend
from cisi_runtime.errors import CpuError
from cisi_runtime.parity.cpu_check import check_on_this_cpu


@dataclasses.dataclass(frozen=True)
class OpenedModel:
    """An open backend.

    path: the file that was chosen.
    reason: for people, what runs and why.
    warning: why an INT8 graph could not be checked on this CPU; None: it was, or needs no check.
    """

    path: Path | None
    backend: Backend
    reason: str
    warning: str | None = None


def open_model(
    model: Path | None, backend: str = "auto", *, threads: int = 0, precision: str = "stored"
) -> OpenedModel:
    """Open a file in a backend (see `open_backend`), and check an INT8 graph on this CPU.

    model: None for what ships: the INT8 graph, or the float32 graph where that was not asked for or INT8 fails its
        check; the reason then says so.

    Raises CpuError for a file that fails its check, and what `open_backend` raises.
    """
    if model is not None:
        return _open(model, backend, threads, precision)
    if backend not in ("auto", *CPU_BACKENDS) or precision != "stored":
        return _open(SHIPPED_GRAPH, backend, threads, precision)
    try:
        return _open(SHIPPED_INT8_GRAPH, backend, threads, precision)
    except CpuError as error:
        opened = _open(SHIPPED_GRAPH, backend, threads, precision)
        return dataclasses.replace(opened, reason=f"{opened.reason}; not INT8: {error}")


def _open(model: Path, backend: str, threads: int, precision: str) -> OpenedModel:
    opened, reason = open_backend(model, backend, threads=threads, precision=precision)
    try:
        return OpenedModel(model, opened, reason, check_on_this_cpu(opened, model))
    except BaseException:
        opened.close()
        raise
