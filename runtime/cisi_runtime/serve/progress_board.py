"""What the network's process has done, in memory that the first process reads without asking."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

# Numbers of windows that are counted one by one; what is larger counts as the last.
_SIZES = 64
# Batches that may run at a time and be watched.
_RUNNERS = 256


class Progress:
    """Counts of batches, and since when those that run have been running. Goes to another process as an argument."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._counts: Any = context.RawArray("Q", _SIZES + 1)
        self._since: Any = context.RawArray("d", _RUNNERS)

    def count(self, windows: int) -> None:
        """A batch of so many windows has run."""
        self._counts[min(windows, _SIZES)] += 1

    @contextlib.contextmanager
    def batch(self, runner: int) -> Iterator[None]:
        """Around a batch. runner: number of the thread that runs it."""
        place = runner % _RUNNERS
        self._since[place] = time.monotonic()
        try:
            yield
        finally:
            self._since[place] = 0.0

    def forget_batches(self) -> None:
        """The process has ended, and its batches with it."""
        self._since[:] = [0.0] * _RUNNERS

    @property
    def batches(self) -> dict[int, int]:
        """How often a batch of each number of windows ran."""
        return {windows: count for windows, count in enumerate(self._counts) if count}

    @property
    def running_s(self) -> float:
        """How long the oldest batch that runs has been running; 0 for none. The clock is that of the machine."""
        since = [start for start in self._since if start]
        return max(0.0, time.monotonic() - min(since)) if since else 0.0
