"""Batches of samples, which processes of their own read."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator

from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from cisi_runtime.errors import CisiError
from cisi_train.data import TrainingSamples

_Sample = tuple[Tensor, Tensor]


def batches(
    samples: TrainingSamples, *, first: int, stride: int, batch: int, workers: int, pin_memory: bool
) -> Generator[_Sample]:
    """Batch number `first`, then every `stride`-th, without end: crops uint8 `[batch, S, S, 3]` and hole masks bool
    `[batch, 2, S, S]`. To be closed: its processes end then.

    Order, crops and holes follow from the numbers of the samples (see `TrainingSamples`). Raises PictureError for a
    photograph that can no longer be read.
    """
    reader = iter(
        DataLoader(
            _OrError(samples),
            batch_sampler=_numbers(first, stride, batch),  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_collate,
            pin_memory=pin_memory,
            worker_init_fn=_ignore_stop_signals,
        )
    )
    try:
        for found in reader:
            if isinstance(found, CisiError):
                raise found
            yield found
    finally:
        # Not left to the reader's finaliser: an error on its way holds the reader, and where the program ends Python
        # waits without limit for processes that ignore SIGTERM.
        if workers:
            reader._shutdown_workers()  # type: ignore[attr-defined]


class _OrError(Dataset[_Sample | CisiError]):
    """Samples, or why there is none. PyTorch would raise errors of a process with a traceback as their text."""

    def __init__(self, samples: TrainingSamples) -> None:
        self._samples = samples

    def __getitem__(self, number: int) -> _Sample | CisiError:
        try:
            return self._samples[number]
        except CisiError as error:
            return error


def _collate(found: list[_Sample | CisiError]) -> _Sample | CisiError:
    for item in found:
        if isinstance(item, CisiError):
            return item
    crops, holes = default_collate(found)
    return crops, holes


def _numbers(first: int, stride: int, batch: int) -> Iterator[range]:
    while True:
        yield range(first * batch, (first + 1) * batch)
        first += stride


def _ignore_stop_signals(_worker: int) -> None:
    """Ctrl-C reaches every process of the group. The trainer alone ends the run."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
