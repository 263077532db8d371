"""What the service is asked to run, and what its processes know of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cisi_runtime.backends.base import FixedShape
from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.contract import Contract


@dataclasses.dataclass(frozen=True)
class NetworkOptions:
    """What the network is opened with; see `Inpainter`. model: None for what ships."""

    model: Path | None
    backend: BackendOptions


@dataclasses.dataclass(frozen=True)
class NetworkInfo:
    """What the other processes know of the network.

    name: of the backend. fixed: sizes that it takes. precision: that it computes in.
    reason: for people, what runs and why. warnings: for people, what could not be checked.
    parity: for people, the verdict of the check before use.
    """

    name: str
    contract: Contract
    fixed: FixedShape
    precision: str
    reason: str
    warnings: tuple[str, ...]
    parity: str
