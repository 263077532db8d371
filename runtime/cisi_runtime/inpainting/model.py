"""Which network an `Inpainter` runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import (
    CPU_BACKENDS,
    SHIPPED_GRAPH,
    SHIPPED_INT8_GRAPH,
    BackendOptions,
    open_backend,
)
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


def shipped_graph(options: BackendOptions) -> Path:
    """What runs where no model is named: the INT8 graph, or the float32 graph where these options ask for what INT8 is
    not made for."""
    on_cpu = options.backend in ("auto", *CPU_BACKENDS) and options.device != "cuda"
    return SHIPPED_INT8_GRAPH if on_cpu and options.precision == "stored" else SHIPPED_GRAPH


def open_model(model: Path | None, options: BackendOptions | None = None) -> OpenedModel:
    """Open a file in a backend (see `open_backend`), and check an INT8 graph on this CPU.

    model: None for what ships (see `shipped_graph`). Where INT8 fails its check, that is the float32 graph; the reason
        then says so.

    Raises CpuError for a file that fails its check, and what `open_backend` raises.
    """
    options = options or BackendOptions()
    if model is not None:
        return _open(model, options)
    try:
        return _open(shipped_graph(options), options)
    except CpuError as error:
        opened = _open(SHIPPED_GRAPH, options)
        return dataclasses.replace(opened, reason=f"{opened.reason}; not INT8: {error}")


def _open(model: Path, options: BackendOptions) -> OpenedModel:
    opened, reason = open_backend(model, options)
    try:
        return OpenedModel(model, opened, reason, check_on_this_cpu(opened, model))
    except BaseException:
        opened.close()
        raise
