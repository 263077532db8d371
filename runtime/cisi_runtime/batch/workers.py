"""What works on the photographs of a folder: a process for each core, or threads that share a network.

Python code of several threads takes turns, and texture is much of it: two threads finish 1.5 times as many photographs
as one, two processes 1.8 times (2 cores, 1 megapixel; `python -m benchmarks.throughput`). Networks on a GPU and
checkpoints, which are slow to load, are shared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from cisi_runtime.backends.cores import limit_cores
from cisi_runtime.backends.registry import CPU_BACKENDS, BackendOptions
from cisi_runtime.batch.job import Job, JobSummary, attempt, run_job, summarise
from cisi_runtime.batch.photograph import DEFAULT_OPTIONS, PhotographOptions
from cisi_runtime.child_process import prepare_child
from cisi_runtime.errors import CisiError, DataError, GraphError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.pictures.pillow import one_thread_a_file, prepare_for_photographs

# As many processes as `ProcessPoolExecutor` can wait for on Windows.
_MAX_ON_WINDOWS = 61
# Why a photograph and those behind it have no result.
KILLED = "not done, because a worker was killed, perhaps for want of memory"


@dataclasses.dataclass(frozen=True)
class WorkerOptions:
    """What each worker opens (see `Inpainter`), and how photographs are read."""

    model: Path | None
    backend: BackendOptions
    detail: bool
    job: PhotographOptions

    def open(self) -> Inpainter:
        """The network. Raises what `Inpainter` raises."""
        return Inpainter(self.model, detail=self.detail, **dataclasses.asdict(self.backend))


def start_workers(
    options: WorkerOptions, inpainter: Inpainter, workers: int
) -> tuple[Executor, Callable[[Job], JobSummary]]:
    """A pool of `workers`, and what to submit to it with a job. Shut the pool down in the end, as `run_jobs` does.

    inpainter: as `options.open` gives it. Threads share it; processes open their own, and it is closed.
    """
    if workers == 1 or inpainter.backend.name not in CPU_BACKENDS:
        one_thread_a_file()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="photograph")
        return pool, lambda job: summarise(run_job(job, lambda: inpainter, options.job))
    # Every worker opens what was chosen here, also where that was float32 because INT8 failed its check.
    options = dataclasses.replace(options, model=inpainter.model)
    digest = _digest(options.model)
    inpainter.close()
    context = multiprocessing.get_context("spawn")
    if sys.platform == "win32":
        workers = min(workers, _MAX_ON_WINDOWS)
    processes = _Processes(workers, context, _start, (options, digest))
    # All start now. A pool starts them when they are needed, which in a watched folder may be days later.
    for _ in range(workers):
        processes.submit(os.getpid)
    return processes, _run


def run_jobs(
    jobs: Iterable[Job], run: Callable[[Job], JobSummary], pool: Executor, in_flight: int
) -> Iterator[tuple[Job, JobSummary | CisiError]]:
    """Each job with its summary, or the error that ended it, in the order in which they end. Shuts the pool down.

    in_flight: jobs that the pool holds at a time. More than its workers, so that none waits for the next one.

    When the caller leaves early, jobs that the pool holds are finished or dropped, and no others begun.
    """
    waiting = iter(jobs)
    futures: dict[Future[JobSummary | CisiError], Job] = {}
    try:
        while True:
            begun = list(itertools.islice(waiting, in_flight - len(futures)))
            for job in begun:
                try:
                    futures[pool.submit(attempt, job, run)] = job
                except BrokenProcessPool:  # as below
                    yield job, DataError(f"{job.image}: {KILLED}")
            if not futures and not begun:
                return
            for future in wait(futures, return_when=FIRST_COMPLETED).done if futures else ():
                job = futures.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    result = DataError(f"{job.image}: {KILLED}")
                yield job, result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def kill_workers(pool: Executor) -> None:
    """Do not wait for the photographs of its processes. Threads finish theirs."""
    for process in list(pool._processes.values()) if isinstance(pool, _Processes) else ():
        process.kill()


class _Processes(ProcessPoolExecutor):
    """Ctrl-C while it waits for its workers to finish kills them. Without that it could wait for ever, because their
    end would not reach them."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        processes = list((self._processes or {}).values())
        try:
            super().shutdown(wait=wait, cancel_futures=cancel_futures)
        except KeyboardInterrupt:
            for process in processes:
                process.kill()
            raise


# The network of a worker process, or why it has none, and how it reads photographs; from `_start` on.
_inpainter: Inpainter | Exception | None = None
_job_options = DEFAULT_OPTIONS


def _digest(model: Path | None) -> str | None:
    """SHA-256 of a file, None where it cannot be read."""
    try:
        return None if model is None else hashlib.sha256(model.read_bytes()).hexdigest()
    except OSError:
        return None


def _start(options: WorkerOptions, digest: str | None) -> None:
    global _inpainter, _job_options
    # Ctrl-C reaches every process of a terminal.
    prepare_child(signal.SIGINT)
    prepare_for_photographs()
    one_thread_a_file()
    limit_cores(1)
    _job_options = options.job
    try:
        _inpainter = options.open()
        if _digest(options.model) != digest:
            raise GraphError(f"{options.model}: is another file than when the run began")
    except Exception as error:
        # An error here would end the pool without a word of it. So every photograph tells it.
        _inpainter = error


def _run(job: Job) -> JobSummary:
    inpainter = _inpainter
    if isinstance(inpainter, Exception):
        raise inpainter
    assert inpainter is not None
    return summarise(run_job(job, lambda: inpainter, _job_options))
