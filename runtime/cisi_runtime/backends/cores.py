"""How many cores there are to work with."""

from __future__ import annotations

import os

_limit: int | None = None


def available_cores() -> int:
    """Cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores if _limit is None else min(cores, _limit)


def limit_cores(cores: int) -> None:
    """Let this process count no more cores than these: for one of several that share them."""
    global _limit
    _limit = cores
