"""Windows of all requests that wait, through the network in shared batches."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.errors import GraphError
from cisi_runtime.serve.progress_board import Progress

Array = npt.NDArray[Any]
# Pixels of a batch: four windows of the usual size. A single larger picture runs alone.
_MAX_PIXELS = 4 * 256 * 256


@dataclasses.dataclass(frozen=True, eq=False)
class _Waiting:
    """Windows of one caller. image, hole_mask: in the layout of the graph's face, as `Backend.run` takes them."""

    image: Array
    hole_mask: Array
    completed: Future[Array]


class WindowBatcher:
    """`WindowBatcher(backend, 4, progress).run(image, hole_mask)` is `backend.run`, for many threads at a time.

    Nothing waits for company: whenever the network is free, the oldest windows run, with all others of their size that
    wait, up to `max_windows`. Where a batch fails, each caller's windows run alone,
    so that one of them cannot fail the others. A graph of a fixed batch runs what each caller brings.

    progress: told of each batch.
    narrow: the same network with one thread, for what runs beside other windows: on a CPU several threads on one window
        cost more work than one thread on each of several. At most `runners` batches then run at a time.
    """

    def __init__(
        self,
        backend: Backend,
        max_windows: int,
        progress: Progress,
        *,
        narrow: Backend | None = None,
        runners: int = 1,
    ) -> None:
        self._wide, self._narrow, self._progress = backend, narrow, progress
        self._max_windows = min(max_windows, backend.fixed.limits()[1][0]) if backend.fixed.batch is None else 1
        self._waiting: deque[_Waiting] = deque()
        self._running = 0
        self._changed = threading.Condition()
        self._is_closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"network {number}", daemon=True)
            for number in range(runners if narrow is not None else 1)
        ]
        for thread in self._threads:
            thread.start()

    def run(self, image: Array, hole_mask: Array) -> Array:
        """As `Backend.run`, and raises what it raises. Blocks. Raises GraphError after `close`.

        More windows than a batch may have run one batch after another: memory follows the batch.
        """
        # A graph that takes no single picture gets what its caller brings.
        is_free = self._wide.fixed.limits()[0][0] == 1
        step = self._most(image) if is_free else len(image)
        items = [
            _Waiting(image[start : start + step], hole_mask[start : start + step], Future())
            for start in range(0, max(1, len(image)), max(1, step))
        ]
        with self._changed:
            if self._is_closed:
                raise GraphError("the network is closed")
            self._waiting.extend(items)
            self._changed.notify(len(items))
        results = [item.completed.result() for item in items]
        return results[0] if len(results) == 1 else np.concatenate(results)

    def close(self) -> None:
        """End the thread. Who still waits gets GraphError."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for item in self._waiting:
            item.completed.set_exception(GraphError("the network is closed"))
        self._waiting.clear()

    def _work(self, number: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                if self._is_closed:
                    return
                batch = self._take()
                self._running += 1
                is_alone = self._running == 1 and not self._waiting
            backend = self._wide if is_alone or self._narrow is None else self._narrow
            try:
                with self._progress.batch(number):
                    self._run(batch, backend)
            finally:
                with self._changed:
                    self._running -= 1

    def _take(self) -> list[_Waiting]:
        """The oldest, and those behind it that fit its batch."""
        first = self._waiting.popleft()
        batch, windows, most = [first], len(first.image), self._most(first.image)
        for item in list(self._waiting):
            same_size = item.image.shape[1:] == first.image.shape[1:]
            if same_size and windows + len(item.image) <= most:
                batch.append(item)
                windows += len(item.image)
                self._waiting.remove(item)
        return batch

    def _most(self, image: Array) -> int:
        """Windows of an image's size that a batch may have."""
        _, height, width = self._wide.contract.io.size_of(image)
        return max(1, min(self._max_windows, _MAX_PIXELS // max(1, height * width)))

    def _run(self, batch: list[_Waiting], backend: Backend) -> None:
        try:
            if len(batch) == 1:
                results = [backend.run(batch[0].image, batch[0].hole_mask)]
            else:
                image = np.concatenate([item.image for item in batch])
                completed = backend.run(image, np.concatenate([item.hole_mask for item in batch]))
                results = np.split(completed, np.cumsum([len(item.image) for item in batch])[:-1])
        except Exception as error:
            if len(batch) == 1:
                batch[0].completed.set_exception(error)
                return
            for item in batch:
                self._run([item], backend)
            return
        self._progress.count(sum(len(item.image) for item in batch))
        for item, result in zip(batch, results, strict=True):
            item.completed.set_result(result)
