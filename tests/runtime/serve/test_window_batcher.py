"""Windows of many callers in shared batches, with a backend that is held still while they gather."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError
from cisi_runtime.serve.progress_board import Progress
from cisi_runtime.serve.window_batcher import WindowBatcher
from tests.support.networks import provenance
from tests.support.service import wait_until

Array = npt.NDArray[Any]


class Held(Backend):
    """Adds one to each pixel. Waits for `go`; keeps the shapes that it ran; fails on a batch with a pixel of 99."""

    def __init__(self, batch: int | None = None) -> None:
        super().__init__("held", Contract(PRESETS["tiny"], provenance(), face="uint8"), FixedShape(batch))
        self.go = threading.Event()
        self.shapes: list[tuple[int, ...]] = []

    def _run(self, image: Array, hole_mask: Array) -> Array:  # noqa: ARG002
        self.go.wait()
        self.shapes.append(image.shape[:3])
        if (image == 99).any():
            raise GraphError("99")
        return image + np.uint8(1)

    def _close(self) -> None:
        """Nothing."""


def windows(value: int, count: int = 1, height: int = 64, width: int = 80) -> tuple[Array, Array]:
    image = np.full((count, height, width, 3), value, dtype=np.uint8)
    return image, np.zeros(image.shape[:3], dtype=np.uint8)


def gathered(backend: Held, batcher: WindowBatcher, asked: list[tuple[Array, Array]]) -> list[Array | Exception]:
    """What each caller gets. The first is being run while the others come, in their order."""
    results: list[Array | Exception] = []
    with ThreadPoolExecutor(len(asked)) as pool:
        futures = []
        for number, inputs in enumerate(asked):
            futures.append(pool.submit(batcher.run, *inputs))
            waiting = number  # the first has been taken
            wait_until(lambda expected=waiting: len(batcher._waiting) == expected)  # type: ignore[misc]
        backend.go.set()
        for future in futures:
            error = future.exception()
            results.append(future.result() if error is None else error)  # type: ignore[arg-type]
    return results


def test_what_waits_shares_batches_by_size_and_keeps_its_order() -> None:
    backend = Held()
    progress = Progress()
    batcher = WindowBatcher(backend, 4, progress)
    asked = [windows(1), windows(2), windows(3, height=96), windows(4, 2), windows(5, 2), windows(6), windows(7)]
    results = gathered(backend, batcher, asked)
    for (image, _), result in zip(asked, results, strict=True):
        assert isinstance(result, np.ndarray)
        assert np.array_equal(result, image + 1)
    # 1 ran at once; 2, 4 (two) and 6 filled a batch, 5 did not fit; 3 is of another size.
    assert backend.shapes == [(1, 64, 80), (4, 64, 80), (1, 96, 80), (3, 64, 80)]
    assert progress.batches == {1: 2, 4: 1, 3: 1}
    batcher.close()


def test_more_than_a_batch_may_have_runs_piece_by_piece() -> None:
    backend = Held()
    backend.go.set()
    batcher = WindowBatcher(backend, 4, Progress())
    image, hole_mask = windows(5, 10)
    assert np.array_equal(batcher.run(image, hole_mask), image + 1)
    assert [shape[0] for shape in backend.shapes] == [4, 4, 2]
    # Of large ones a batch has as many pixels at most as of four usual ones.
    batcher.run(*windows(5, 4, 512, 256))
    batcher.run(*windows(5, 2, 1024, 512))
    assert [shape[0] for shape in backend.shapes[3:]] == [2, 2, 1, 1]
    batcher.close()


def test_one_that_fails_does_not_fail_the_others() -> None:
    backend = Held()
    batcher = WindowBatcher(backend, 4, Progress())
    results = gathered(backend, batcher, [windows(1), windows(2), windows(99), windows(4)])
    assert isinstance(results.pop(2), GraphError)
    assert [int(result[0, 0, 0, 0]) for result in results if isinstance(result, np.ndarray)] == [2, 3, 5]
    # Inputs that the backend refuses are their caller's fault alone, too.
    with pytest.raises(ValueError, match="multiples of 16"):
        batcher.run(*windows(1, height=70))
    batcher.close()


def test_a_graph_of_a_fixed_batch_runs_what_each_caller_brings() -> None:
    backend = Held(2)
    batcher = WindowBatcher(backend, 4, Progress())
    gathered(backend, batcher, [windows(1, 2), windows(2, 2), windows(3, 2)])
    assert backend.shapes == [(2, 64, 80)] * 3
    batcher.close()


def test_what_runs_beside_others_has_one_thread() -> None:
    wide, narrow = Held(), Held()
    progress = Progress()
    batcher = WindowBatcher(wide, 4, progress, narrow=narrow, runners=2)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.run, *windows(1))
        wait_until(lambda: batcher._running == 1)
        second = pool.submit(batcher.run, *windows(2))
        wait_until(lambda: batcher._running == 2)
        third = pool.submit(batcher.run, *windows(3))
        wait_until(lambda: len(batcher._waiting) == 1)
        assert progress.running_s > 0.0
        narrow.go.set()
        assert second.result().max() == 3
        assert third.result().max() == 4
        assert narrow.shapes == [(1, 64, 80)] * 2
        assert wide.shapes == []
        wide.go.set()
        assert first.result().max() == 2
    batcher.close()
    assert progress.running_s == 0.0
    assert progress.batches == {1: 3}


def test_nobody_waits_for_a_batcher_that_is_closed() -> None:
    backend = Held()
    batcher = WindowBatcher(backend, 4, Progress())
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(batcher.run, *windows(1))
        wait_until(lambda: not batcher._waiting and not first.done())
        second = pool.submit(batcher.run, *windows(2))
        wait_until(lambda: len(batcher._waiting) == 1)
        closing = pool.submit(batcher.close)
        wait_until(lambda: batcher._is_closed)
        backend.go.set()
        closing.result()
        assert first.result().max() == 2
        with pytest.raises(GraphError, match="is closed"):
            second.result()
    with pytest.raises(GraphError, match="is closed"):
        batcher.run(*windows(1))
