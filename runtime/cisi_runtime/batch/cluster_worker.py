"""What a worker of a cluster does: it holds one network, and works on photographs whose addresses it is given.

Nothing here knows Ray, which runs it as an actor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

from cisi_runtime.backends.cores import limit_cores
from cisi_runtime.backends.registry import is_engine
from cisi_runtime.batch.job import Job, JobSummary, attempt, run_job, summarise
from cisi_runtime.batch.workers import WorkerOptions
from cisi_runtime.engines.sidecar import load_sidecar, sidecar_path
from cisi_runtime.errors import CisiError, GraphError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.model import shipped_graph
from cisi_runtime.parity.golden import golden_path
from cisi_runtime.pictures.pillow import one_thread_a_file, prepare_for_photographs


@dataclasses.dataclass(frozen=True)
class OpenedNetwork:
    """What a worker opened.

    reason: for people, what runs and why. warning: why it could not be checked.
    version: of this package, on the worker's machine, which is `machine`.
    """

    reason: str
    warning: str | None
    version: str
    machine: str


def read_model(model: Path) -> dict[str, bytes]:
    """A model file and what belongs beside it, by name: a worker has another disk. Raises GraphError."""
    if not model.is_file():
        raise GraphError(f"{model}: no such file")
    paths = [model]
    if model.suffix == ".onnx":
        paths.append(golden_path(model))
    elif is_engine(model):
        load_sidecar(model)
        paths.append(sidecar_path(model))
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


class PhotographWorker:
    """options: where `files` is not empty, it holds their model (see `read_model`). folder: relative paths are relative
    to it, where this machine has it.
    """

    def __init__(self, options: WorkerOptions, files: dict[str, bytes], folder: Path) -> None:
        self._options, self._files, self._folder = options, files, folder
        self._inpainter: Inpainter | None = None

    def open(self) -> OpenedNetwork | CisiError:
        """Open the network, or say why that is not possible here."""
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        prepare_for_photographs()
        one_thread_a_file()
        limit_cores(self._options.backend.threads)
        try:
            # Every backend has read the file when it is open.
            with tempfile.TemporaryDirectory(prefix="cisi-") as folder:
                for name, data in self._files.items():
                    (Path(folder) / name).write_bytes(data)
                self._inpainter = inpainter = _model_in(self._options, Path(folder)).open()
        except CisiError as error:
            return error
        self._files = {}
        return OpenedNetwork(inpainter.backend_reason, inpainter.warning, version("cisi-net"), platform.node())

    def run(self, job: Job) -> JobSummary | CisiError:
        """Do a photograph."""
        inpainter = self._inpainter
        assert inpainter is not None  # `open` has been called
        return attempt(job, lambda job: summarise(run_job(job, lambda: inpainter, self._options.job)))


def _model_in(options: WorkerOptions, folder: Path) -> WorkerOptions:
    """The same with a model that leaves no choice: workers must not differ in what they run."""
    model = folder / options.model.name if options.model else shipped_graph(options.backend)
    return dataclasses.replace(options, model=model)
