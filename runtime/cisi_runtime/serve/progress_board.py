"""What the network's process has done, in memory that the first process reads without asking."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

# Numbers of windows that are counted one by one; what is larger counts as the last.
_SIZES = 64


class Progress:
    """Counts of batches, and since when one has been running. Goes to another process as an argument."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._counts: Any = context.RawArray("Q", _SIZES + 1)
        self._since: Any = context.RawValue("d", 0.0)

    def count(self, windows: int) -> None:
        """A batch of so many windows has run."""
        self._counts[min(windows, _SIZES)] += 1

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Around a batch."""
        self._since.value = time.monotonic()
        try:
            yield
        finally:
            self._since.value = 0.0

    def forget_batch(self) -> None:
        """The process has ended, and its batch with it."""
        self._since.value = 0.0

    @property
    def batches(self) -> dict[int, int]:
        """How often a batch of each number of windows ran."""
        return {windows: count for windows, count in enumerate(self._counts) if count}

    @property
    def running_s(self) -> float:
        """How long the batch that runs has been running; 0 for none. The clock is that of the machine."""
        since = self._since.value
        return max(0.0, time.monotonic() - since) if since else 0.0
