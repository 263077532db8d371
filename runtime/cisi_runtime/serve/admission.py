"""How much work the service takes on: by pixels, and by the time that what waits is expected to take."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from cisi_runtime.serve.refusals import RefusalError

# Work that a photograph counts for at least, in megapixels: small ones have holes too.
_SMALLEST = 1.0
# Part of the deadline that may be expected to pass in the queue.
_MAX_WAIT = 0.25
# Weight of the newest photograph in the running mean of seconds per megapixel.
_NEWEST = 0.1
# How many times the mean a photograph may count.
_OUTLIER = 4.0


@dataclasses.dataclass
class _Held:
    """Work in megapixels, and requests, that were let in and have not ended."""

    megapixels: float = 0.0
    requests: int = 0


class Admission:
    """Lets requests in until the queue is full. For one thread.

    max_megapixels: of all that is waiting or being worked on; a single photograph is always let in.
    workers: processes that work on photographs.
    deadline_s: see `serve.limits`.
    """

    def __init__(self, max_megapixels: float, workers: int, deadline_s: float) -> None:
        self._max_megapixels, self._workers, self._deadline_s = max_megapixels, workers, deadline_s
        self._held = _Held()
        # Until something was measured nothing is expected: the pixels decide alone.
        self._seconds_per_megapixel = 0.0

    @property
    def megapixels(self) -> float:
        """Work that was let in and has not ended."""
        return self._held.megapixels

    @property
    def requests(self) -> int:
        """Requests that were let in and have not ended."""
        return self._held.requests

    @contextlib.contextmanager
    def admit(self, megapixels: float) -> Iterator[None]:
        """Count a request in, for the length of the block. Raises RefusalError (429) when the queue is full."""
        work = max(_SMALLEST, megapixels)
        wait_s = self._wait_s(self._held.megapixels)
        too_many = self._held.megapixels + work > self._max_megapixels
        most_s = _MAX_WAIT * self._deadline_s
        if self._held.requests and (too_many or wait_s > most_s):
            raise RefusalError(
                429,
                "queue-full",
                f"{self._held.requests} requests with {self._held.megapixels:.0f} megapixels are waiting, which fills "
                "the queue; expected fewer at a time",
                retry_after_s=max(self._wait_s(self._held.megapixels + work - self._max_megapixels), wait_s - most_s),
            )
        self._held.megapixels += work
        self._held.requests += 1
        try:
            yield
        finally:
            self._held.megapixels -= work
            self._held.requests -= 1

    def took(self, megapixels: float, seconds: float) -> None:
        """Learn from a photograph that a worker has finished."""
        known = self._seconds_per_megapixel
        # One that took much longer, such as a large AVIF file, says little of the others.
        newest = min(seconds / max(_SMALLEST, megapixels), _OUTLIER * known if known else seconds)
        self._seconds_per_megapixel = known + _NEWEST * (newest - known) if known else newest

    def _wait_s(self, megapixels: float) -> float:
        """How long this work is expected to take with all workers."""
        return megapixels * self._seconds_per_megapixel / self._workers


class ByteBudget:
    """Memory for what requests send, all of them together. For one thread."""

    def __init__(self, max_bytes: int) -> None:
        self._free = self._max_bytes = max_bytes

    def take(self, count: int) -> None:
        """Raises RefusalError (429) when there is not that much left."""
        if count > self._free:
            raise RefusalError(
                429,
                "queue-full",
                f"uploads of other requests fill the {self._max_bytes} bytes there are for them",
                retry_after_s=1.0,
            )
        self._free -= count

    def give_back(self, count: int) -> None:
        """What `take` took."""
        self._free += count
