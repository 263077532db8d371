"""Memory of a process that works on one photograph after another."""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's `mallopt` (mallopt(3)).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
# Free memory that stays with the process, and blocks from which on each is asked for anew: the pixels of some 20
# megapixels.
_KEPT_BYTES, _LARGE_BYTES = 256 << 20, 64 << 20


def keep_memory() -> None:
    """Let glibc keep the memory of one array for the next, up to 256 MB. Does nothing with other C libraries.

    By default it returns each array of some hundred kilobytes to the system and asks for it anew, which costs a page
    fault for every 4 kB: 28 of 300 ms of a photograph of 1 megapixel (`python -m benchmarks.throughput`).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
