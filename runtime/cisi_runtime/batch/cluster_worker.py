"""What a worker of a cluster does: it holds one network, and works on photographs whose addresses it is given.

Nothing here knows Ray, which runs it as an actor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from importlib.metadata import version
from pathlib import Path

from cisi_runtime.backends.cores import limit_cores
from cisi_runtime.batch.job import Job, JobSummary, attempt, run_job, summarise
from cisi_runtime.batch.workers import WorkerOptions
from cisi_runtime.errors import CisiError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.model import shipped_graph
from cisi_runtime.inpainting.model_copy import ModelCopy
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


class PhotographWorker:
    """model: that of the options, None for what ships: a worker has another disk. folder: relative paths are relative
    to it, where this machine has it.
    """

    def __init__(self, options: WorkerOptions, model: ModelCopy | None, folder: Path) -> None:
        self._options, self._model, self._folder = options, model, folder
        self._inpainter: Inpainter | None = None

    def open(self) -> OpenedNetwork | CisiError:
        """Open the network, or say why that is not possible here."""
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        prepare_for_photographs()
        one_thread_a_file()
        limit_cores(self._options.backend.threads)
        try:
            # Workers must not differ in what they run: no choice is left.
            shipped = contextlib.nullcontext(shipped_graph(self._options.backend))
            with self._model.written() if self._model else shipped as model:
                self._inpainter = inpainter = dataclasses.replace(self._options, model=model).open()
        except CisiError as error:
            return error
        self._model = None
        return OpenedNetwork(inpainter.backend_reason, inpainter.warning, version("cisi-net"), platform.node())

    def run(self, job: Job) -> JobSummary | CisiError:
        """Do a photograph."""
        inpainter = self._inpainter
        assert inpainter is not None  # `open` has been called
        return attempt(job, lambda job: summarise(run_job(job, lambda: inpainter, self._options.job)))
