"""Work that one worker of a test run does for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Limit for every process that a test starts: many times what any of them takes on an idle machine. It only ends a run
# that hangs.
TIMEOUT_S = int(os.environ.get("CISI_TEST_TIMEOUT_S", "900"))


def shared_base(factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that is the same for all workers of this run."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def once(factory: pytest.TempPathFactory, name: str, work: Callable[[], None]) -> None:
    """Do some work if no worker has done it. The others wait meanwhile. Work that failed is tried again."""
    base = shared_base(factory)
    complete = base / f"{name}.complete"
    with FileLock(base / f"{name}.lock"):
        if not complete.exists():
            work()
            complete.touch()


def shared_folder(factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], None]) -> Path:
    """A folder that whoever comes first fills."""
    folder = shared_base(factory) / name

    def make() -> None:
        folder.mkdir(exist_ok=True)
        fill(folder)

    once(factory, name, make)
    return folder
