"""Work that one worker of a test run does for all of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from onnx import ModelProto

    from cisi_export.exporting import GraphOptions
    from cisi_train.checkpoint import Checkpoint

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


@contextlib.contextmanager
def exported_once(factory: pytest.TempPathFactory) -> Iterator[None]:
    """Exports of the same weights and options are made once for all workers. One takes seconds and gives the same graph
    again, as tests of `test_export.py` and `test_parity.py` show that do
    without."""
    from onnx import ModelProto

    from cisi_export import exporting

    folder, export = shared_base(factory), exporting._float_graph

    def export_once(checkpoint: Checkpoint, options: GraphOptions, *_progress: object) -> ModelProto:
        what = f"{checkpoint.contract.to_json()} {options}"
        path = folder / f"export-{hashlib.sha256(what.encode()).hexdigest()}"

        def write() -> None:
            path.write_bytes(export(checkpoint, options).SerializeToString())

        once(factory, path.name, write)
        return ModelProto.FromString(path.read_bytes())

    with mock.patch.object(exporting, "_float_graph", export_once):
        yield
