"""Memory of a process that works on one photograph after another."""

from __future__ import annotations

import ctypes
import sys
from typing import Any

# Parameters of glibc's `mallopt` (mallopt(3)).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Free memory at the end of the heap that stays with the process, and blocks from which on each is asked for anew: the
# pixels of some 20 megapixels.
_KEPT_BYTES, _LARGE_BYTES = 256 << 20, 64 << 20


def keep_memory() -> None:
    """Let glibc keep the memory of one array for the next. Does nothing with other C libraries.

    By default it returns each array of some hundred kilobytes to the system and asks for it anew, which costs a page
    fault for every 4 kB: 28 of the 300 ms of processor time of a photograph of 1 megapixel in `cisi-serve` (system time
    of its workers).
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)


def release_memory() -> None:
    """Return what is free to the system. Does nothing with other C libraries."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> Any:
    """A function of the C library, None where it does not have it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
