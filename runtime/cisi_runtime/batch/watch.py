"""A folder that is watched: photographs are done when they have arrived.

The system says that something has changed (watchdog). What there is to do is then found as for any folder run, and now
and then without being told, for network drives that tell nothing.
"""

from __future__ import annotations

import contextlib
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from cisi_runtime.batch.job import Job, JobSummary, attempt
from cisi_runtime.batch.plan import Plan
from cisi_runtime.batch.result_folders import ResultFolders
from cisi_runtime.batch.workers import KILLED, kill_workers
from cisi_runtime.errors import CisiError, DataError

# A file is whole when it has not changed for this long, in seconds.
STABLE_S = 1.0
# Without news the folder is looked at this often, in seconds. Looking may take this share of the time.
_LOOK_S, _SHARE = 30.0, 0.2
# What happens to a file that is being written. Reading it is no news.
_NEWS = ("created", "modified", "moved", "closed", "deleted")

# Size and time of the last change of a photograph and of its mask.
_Signature = tuple[tuple[int, int], ...]


class Watch:
    """Photographs that arrive in a folder, each a job once it is whole.

    plan: what there is to do at present. folders: those of photographs and masks. output: where results go; what
    happens there is no news. in_flight: jobs that the pool holds at a time.
    """

    def __init__(self, plan: Callable[[], Plan], folders: list[Path], output: Path, in_flight: int) -> None:
        self._plan, self._folders, self._output, self._in_flight = plan, folders, output.resolve(), in_flight
        self._result_folders = ResultFolders(output, folders)
        # A job that has ended, or None: something has changed, or the end was asked for.
        self._news: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_stopped = False
        self._seen: dict[Job, tuple[_Signature, float]] = {}
        self._failed: dict[Job, _Signature] = {}
        self._whole: deque[Job] = deque()
        self._running: dict[Job, Future[JobSummary | CisiError]] = {}

    def stop(self) -> None:
        """End it when the photographs that are being worked on are done. Safe in a signal handler."""
        self._is_stopped = True
        self._news.put(None)

    def run(self, run: Callable[[Job], JobSummary], pool: Executor) -> Iterator[tuple[Job, JobSummary | CisiError]]:
        """Each job with its summary, or the error that ended it, until `stop`. Shuts the pool down.

        A photograph that failed is done again when it or its mask has changed. A worker that is killed ends it too.
        Raises what `plan` raises.
        """
        try:
            with self._told():
                look_at = time.monotonic()
                while not self._is_stopped:
                    if (start := time.monotonic()) >= look_at:
                        is_stable = self._look()
                        took = time.monotonic() - start
                        soon = time.monotonic() + max(STABLE_S, took / _SHARE)
                        look_at = time.monotonic() + _LOOK_S if is_stable else soon
                    while self._whole and len(self._running) < self._in_flight:
                        self._begin(self._whole.popleft(), run, pool)
                    for job in self._take_news(look_at - time.monotonic()):
                        if job is None:
                            look_at = min(look_at, soon)
                        else:
                            yield self._finish(job)
            for job in [job for job, future in self._running.items() if not future.cancel()]:
                self._running[job].exception()
                yield self._finish(job)
        except KeyboardInterrupt:  # no waiting for what `stop` waits for
            kill_workers(pool)
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _look(self) -> bool:
        """Find what is whole. Returns whether nothing else may soon be."""
        self._whole.clear()
        seen = {job: self._seen[job] for job in self._running}
        failed = {}
        is_stable = True
        with self._plan() as plan:
            for job in plan.jobs():
                signature = _signature(job)
                if job in self._running or signature is None or self._is_behind_a_link(job):
                    continue
                if self._failed.get(job) == signature:
                    failed[job] = signature
                    continue
                now = time.monotonic()
                before = self._seen.get(job)
                seen[job] = before if before is not None and before[0] == signature else (signature, now)
                if now - seen[job][1] >= STABLE_S:
                    self._whole.append(job)
                else:
                    is_stable = False
        # What is no longer there is forgotten.
        self._seen, self._failed = seen, failed
        return is_stable

    def _is_behind_a_link(self, job: Job) -> bool:
        """Whether there is a result that the list of the output folder does not show."""
        if not isinstance(job.output, Path):
            return False
        with contextlib.suppress(CisiError):  # which `_begin` tells
            return self._result_folders.make(job.output.parent) and job.output.exists()
        return False

    def _begin(self, job: Job, run: Callable[[Job], JobSummary], pool: Executor) -> None:
        future: Future[JobSummary | CisiError]
        try:
            if isinstance(job.output, Path):
                self._result_folders.make(job.output.parent)
            future = pool.submit(attempt, job, run)
        except (CisiError, BrokenProcessPool) as error:
            future = Future()
            future.set_exception(error)
        self._running[job] = future
        future.add_done_callback(lambda _: self._news.put(job))

    def _finish(self, job: Job) -> tuple[Job, JobSummary | CisiError]:
        result: JobSummary | CisiError
        try:
            result = self._running.pop(job).result()
        except CisiError as error:
            result = error
        except BrokenProcessPool:
            result = DataError(f"{job.image}: {KILLED}")
            self._is_stopped = True
        signature, _ = self._seen.pop(job)
        if isinstance(result, CisiError):
            self._failed[job] = signature
        return job, result

    def _take_news(self, timeout_s: float) -> list[Job | None]:
        """What has happened, at least one thing unless the time is over."""
        news = []
        with contextlib.suppress(queue.Empty):
            news.append(self._news.get(timeout=max(0.0, timeout_s)))
            while True:
                news.append(self._news.get_nowait())
        return news

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """The system tells what changes in the folders."""
        from watchdog.events import FileSystemEvent, FileSystemEventHandler
        from watchdog.observers import Observer

        class Handler(FileSystemEventHandler):
            def on_any_event(_, event: FileSystemEvent) -> None:  # noqa: N805
                path = Path(str(event.dest_path or event.src_path)).resolve()
                if event.event_type in _NEWS and self._output not in (path, *path.parents):
                    self._news.put(None)

        observer = Observer()
        for folder in self._folders:
            observer.schedule(Handler(), str(folder), recursive=True)
        observer.start()
        try:
            yield
        finally:
            observer.stop()
            observer.join()


def _signature(job: Job) -> _Signature | None:
    """None while one of the files is not there."""
    signature = []
    for path in (job.image, job.mask):
        if isinstance(path, Path):
            try:
                status = path.stat()
            except OSError:
                return None
            signature.append((status.st_size, status.st_mtime_ns))
    return tuple(signature)
