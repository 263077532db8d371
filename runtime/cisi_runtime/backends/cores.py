"""How many cores there are to work with."""

from __future__ import annotations

import os

_limit: int | None = None
_is_shared = False


def available_cores() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if _limit is None else min(cores, _limit)


def limit_cores(cores: int) -> None:
    """Let this process count no more cores than these: for one of several that share them."""
    global _limit
    _limit = cores


def share_cores() -> None:
    """Let this process leave cores to others while it waits: for a network beside processes that use its results."""
    global _is_shared
    _is_shared = True


def cores_are_shared() -> bool:
    """Whether `share_cores` was called."""
    return _is_shared
