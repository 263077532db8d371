"""How many cores there are to work with."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

_limit: int | None = None
_is_shared = False
# Where Linux shows control groups, and those of this process.
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def available_cores() -> int:
    """Cores that this process may use: by its affinity, and by the CPU limit of its container (`docker run --cpus`,
    `limits.cpu` of a pod), rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count for count in (cores, _limit, container_cores()) if count is not None)


def container_cores() -> int | None:
    """Cores by the CPU limit of this process's container, None without one. Libraries look at the affinity alone."""
    return min(_quotas(), default=None)


def _quotas() -> Iterator[int]:
    """Cores by each CPU limit of this process's control groups and of those above (docs.kernel.org, "Control Group v2",
    cpu.max; "CFS Bandwidth Control" for version 1). In a container its own group is at the root."""
    try:
        lines = _OWN_CGROUPS.read_text().splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = _CGROUPS / "cpu" if controllers else _CGROUPS
        group = top / own.lstrip("/")
        for folder in (group, *group.parents):
            # A group that is not there, or has no limit: "max", or -1.
            with contextlib.suppress(OSError, ValueError):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
                quota, period = (int(word) for name in names for word in (folder / name).read_text().split())
                if quota > 0:
                    yield max(1, math.ceil(quota / period))
            if folder == top:
                break


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
