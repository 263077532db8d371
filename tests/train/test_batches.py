"""Processes that read pictures: what goes wrong there is told, and they end."""

import itertools
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from cisi_runtime.errors import CisiError, PictureError
from cisi_train.batches import batches
from cisi_train.data import TrainingSamples, open_folder
from cisi_train.memory_errors import memory_errors
from tests.support.training_runs import Trainer, options


@pytest.fixture
def readers() -> Callable[[], list[BaseProcess]]:
    """The processes that were started in a test and run."""
    before = multiprocessing.active_children()
    return lambda: [process for process in multiprocessing.active_children() if process not in before]


def samples_of(folder: Path) -> TrainingSamples:
    return TrainingSamples(open_folder(folder).training, 64, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_numbers(
    photo_folder: Path, workers: int, readers: Callable[[], list[BaseProcess]]
) -> None:
    samples = samples_of(photo_folder)
    made = batches(samples, first=1, stride=3, batch=2, workers=workers, pin_memory=False)
    found = list(itertools.islice(made, 2))
    made.close()
    assert readers() == []
    for (crops, holes), numbers in zip(found, ([2, 3], [8, 9]), strict=True):
        for place, number in enumerate(numbers):
            crop, hole = samples[number]
            assert torch.equal(crops[place], crop)
            assert torch.equal(holes[place], hole)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_photograph_that_is_gone_ends_the_run_with_its_name(
    photo_folder: Path, tmp_path: Path, workers: int, readers: Callable[[], list[BaseProcess]]
) -> None:
    photographs = tmp_path / "photographs"
    shutil.copytree(photo_folder, photographs)
    trainer = Trainer(options(photographs, tmp_path / "run", workers=workers))
    for path in list(photographs.rglob("*.png")):
        path.unlink()
    with pytest.raises(PictureError) as raised:
        trainer.run()
    assert str(raised.value).startswith(f"{photographs}/")
    assert str(raised.value).endswith(".png: no such file")
    # The error holds the frames of the run, and their processes would be waited for at the end of the program.
    assert readers() == []


def test_a_process_that_is_killed_is_told(
    photo_folder: Path, tmp_path: Path, readers: Callable[[], list[BaseProcess]]
) -> None:
    class Killing(Trainer):
        def train_step(self, image: torch.Tensor, holes: torch.Tensor, *, progress: float) -> dict[str, float]:
            for child in readers():
                assert child.pid is not None
                os.kill(child.pid, signal.SIGKILL)
            return super().train_step(image, holes, progress=progress)

    trainer = Killing(options(photo_folder, tmp_path, workers=1, steps=1000))
    with pytest.raises(CisiError, match="a process that reads pictures was killed, .* expected fewer --workers"):
        trainer.run()
    assert readers() == []


def test_memory_that_is_short_is_told() -> None:
    with pytest.raises(CisiError, match="not enough memory for a step, expected a smaller --batch"), memory_errors():
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="another"), memory_errors():
        raise RuntimeError("another")
