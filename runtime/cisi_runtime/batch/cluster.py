"""The photographs of a run on a Ray cluster.

Ray starts the workers, places them, carries addresses to them and results back, and notices when a worker or a node is
gone (docs.ray.io, "Fault tolerance: actors"). This module hands out photographs, a few to a worker at a time, so that a
run of millions keeps little in memory. A photograph whose worker is lost goes to another one and has it for itself, so
that one which kills its worker takes no other with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cisi_runtime.batch.cluster_worker import OpenedNetwork, PhotographWorker
from cisi_runtime.batch.job import Job, JobSummary
from cisi_runtime.batch.workers import WorkerOptions
from cisi_runtime.errors import CisiError, ClusterError, DataError
from cisi_runtime.inpainting.model_copy import ModelCopy

# A photograph is given up when it has lost this many workers. Where as many are lost while they start, none of them
# working meanwhile, the place of one is given up. A run is, when no place is left.
MAX_LOST = 3
# Photographs that a worker holds: the next one is there when one is done.
_HELD = 2
# How often the cluster is looked at for nodes that have come, in seconds, and how often a lack of workers is told.
_LOOK_S, _TELL_S = 5.0, 30.0
# How long the head of a cluster may take to answer, in seconds.
_CONNECT_S = 10.0
# Of a cluster on this machine; what it carries are addresses and one model.
_OBJECT_STORE_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class ClusterOptions:
    """Which cluster, and how it is used.

    address: "auto": that of this machine, or of RAY_ADDRESS; "local": one that is started here; or `ray://HOST:PORT`.
    local_cpus: CPUs of a cluster that is started here, None: all.
    workers: None: as many as fit. at_most: not more than these. cpus_per_worker: CPUs, and threads, of each.
    overlap: a worker reads and writes photographs while it works on others; for storage that is far away.
    """

    address: str
    local_cpus: int | None = None
    workers: int | None = None
    at_most: int | None = None
    cpus_per_worker: int = 1
    overlap: bool = False


def parse_cluster(text: str) -> tuple[str, int | None]:
    """Address and number of CPUs of `auto`, `local`, `local:N` or `ray://HOST:PORT`. Raises ClusterError."""
    kind, _, number = text.partition(":")
    if text in ("auto", "local") or re.fullmatch(r"ray://[^/]+:\d+/?", text):
        return text, None
    if kind == "local" and number.isdecimal() and int(number) > 0:
        return "local", int(number)
    raise ClusterError(f"{text}: expected auto, local, local:N or ray://HOST:PORT")


def run_on_cluster(
    jobs: Iterable[Job], cluster: ClusterOptions, options: WorkerOptions, tell: Callable[[str], None]
) -> Iterator[tuple[Job, JobSummary | CisiError]]:
    """Each job with its summary, or the error that ended it, in the order in which they end.

    tell: gets lines for people: what runs, which workers are not used, what is waited for.

    When the caller leaves early, photographs that workers hold are finished and no others begun. Raises ClusterError
    for a cluster that cannot be reached or used, and what opening the network raises.
    """
    model = None if options.model is None else ModelCopy.read(options.model)
    with _connected(cluster):
        yield from _Workers(cluster, options, model, tell).run(iter(jobs))


@contextlib.contextmanager
def _connected(cluster: ClusterOptions) -> Iterator[None]:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address == "local":
        options |= {"num_cpus": cluster.local_cpus, "object_store_memory": _OBJECT_STORE_BYTES}
        options["include_dashboard"] = False
    try:
        _check_reachable(cluster.address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error says the same
            ray.init(cluster.address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        expected = "expected a running cluster (ray start --head), or --cluster local"
        raise ClusterError(f"{cluster.address}: {_line(error)}; {expected}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody listens at an address. Ray would try for minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
        if address == "local":  # Ray would start one, unasked
            raise OSError("RAY_ADDRESS is local, which is no cluster that runs")
    host, separator, port = address.removeprefix("ray://").rstrip("/").rpartition(":")
    if separator and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
        except OSError as error:
            raise OSError(f"nobody answers at {host}:{port} ({error.strerror or error})") from error


@dataclasses.dataclass
class _Task:
    """A photograph, and how many workers it has lost."""

    job: Job
    lost: int = 0


@dataclasses.dataclass(eq=False)
class _Worker:
    """A worker that has opened the network.

    held: number of photographs that it has. is_alone: it has one that lost its worker before. is_gone: it was lost.
    """

    actor: Any
    held: int = 0
    is_alone: bool = False
    is_gone: bool = False


class _Workers:
    """The workers of a run."""

    def __init__(
        self, cluster: ClusterOptions, options: WorkerOptions, model: ModelCopy | None, tell: Callable[[str], None]
    ) -> None:
        import ray

        self._cluster, self._tell = cluster, tell
        backend = dataclasses.replace(options.backend, threads=cluster.cpus_per_worker)
        self._options = dataclasses.replace(options, backend=backend)
        self._model = ray.put(model)
        self._version = version("cisi-net")
        self._gpus = 1 if options.backend.needs_gpu(options.model) else 0
        self._starting: dict[Any, Any] = {}  # what `open` will return, with its actor
        self._workers: list[_Worker] = []
        # A worker is here once for each photograph that it may have more.
        self._slots: deque[_Worker] = deque()
        self._running: dict[Any, tuple[_Worker, _Task]] = {}  # what `run` will return
        self._again: deque[_Task] = deque()
        self._is_told = False
        self._unfit = self._lost_starts = self._wanted = 0
        self._nodes: set[str] = set()
        self._looked_s, self._told_s = float("-inf"), time.monotonic()

    def run(self, jobs: Iterator[Job]) -> Iterator[tuple[Job, JobSummary | CisiError]]:
        """See `run_on_cluster`."""
        import ray

        tasks = (_Task(job) for job in jobs)
        has_more = True
        try:
            while has_more or self._again or self._running:
                self._start_workers()
                while self._again and (idle := next((w for w in self._workers if not w.held), None)) is not None:
                    self._slots = deque(worker for worker in self._slots if worker is not idle)
                    idle.is_alone = True
                    self._hand_out(idle, self._again.popleft())
                # While one waits for a worker that has nothing to do, no others are handed out.
                while not self._again and self._slots and has_more:
                    if (task := next(tasks, None)) is None:
                        has_more = False
                    else:
                        self._hand_out(self._slots.popleft(), task)
                if not (has_more or self._again or self._running):
                    break
                waited_for = [*self._running, *self._starting]
                if waited_for:
                    ready, _ = ray.wait(waited_for, num_returns=1, timeout=_LOOK_S, fetch_local=False)
                else:
                    ready = []
                    time.sleep(_LOOK_S)
                for reference in ready:
                    if reference in self._starting:
                        self._take_start(reference)
                    else:
                        yield from self._take_result(reference)
        finally:
            self._end()

    def _start_workers(self) -> None:
        """Start workers for CPUs that have none, now and then: nodes come and go."""
        import ray

        now = time.monotonic()
        if now - self._looked_s < _LOOK_S:
            return
        self._looked_s = now
        alive = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        if alive.keys() != self._nodes:
            # Those that were not used may have been on a node that is gone.
            self._nodes, self._unfit = set(alive), 0
        nodes = list(alive.values())
        fitting = sum(self._fitting(node) for node in nodes)
        # Those that are waited for may have their CPUs already. More would wait behind other jobs, and a cluster that
        # grows by what waits would grow as far as it may.
        room = sys.maxsize if self._cluster.workers else self._fitting(ray.available_resources()) - len(self._starting)
        if not fitting and self._cluster.address == "local":
            raise ClusterError(f"local: a worker needs {self._needed()}, and the cluster has {_size(nodes)}")
        self._wanted = min(self._cluster.workers or fitting, self._cluster.at_most or sys.maxsize)
        for _ in range(min(room, self._wanted - self._unfit - len(self._workers) - len(self._starting))):
            actor = (
                ray.remote(PhotographWorker)
                .options(
                    num_cpus=self._cluster.cpus_per_worker,
                    num_gpus=self._gpus,
                    max_concurrency=_HELD if self._cluster.overlap else 1,
                )
                .remote(self._options, self._model, Path.cwd())
            )
            self._starting[actor.open.remote()] = actor
        if not self._workers and now - self._told_s > _TELL_S:
            self._told_s = now
            self._tell(f"waiting for a worker of {self._needed()}: the cluster has {_size(nodes)}")

    def _needed(self) -> str:
        return f"{self._cluster.cpus_per_worker} CPU" + (f" and {self._gpus} GPU" if self._gpus else "")

    def _fitting(self, resources: dict[str, float]) -> int:
        """Number of workers that there is room for."""
        fitting = int(resources.get("CPU", 0)) // self._cluster.cpus_per_worker
        return min(fitting, int(resources.get("GPU", 0))) if self._gpus else fitting

    def _hand_out(self, worker: _Worker, task: _Task) -> None:
        worker.held += 1
        self._running[worker.actor.run.remote(task.job)] = worker, task

    def _take_start(self, reference: Any) -> None:
        import ray

        actor = self._starting.pop(reference)
        try:
            opened = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._lost_starts += 1
            if self._lost_starts % MAX_LOST == 0:
                self._unfit += 1
                lost = f"{self._lost_starts} workers were lost while they started: {_line(error)}"
                if not self._workers and self._unfit >= self._wanted > 0:
                    raise ClusterError(lost) from error
                self._tell(f"a worker is not used: {lost}")
            return
        if (unfit := self._why_unfit(opened)) is not None:
            self._unfit += 1
            ray.kill(actor)
            if not self._workers and not self._starting:
                raise unfit
            self._tell(f"a worker is not used: {unfit}")
            return
        assert isinstance(opened, OpenedNetwork)
        if not self._is_told:
            self._is_told = True
            for line in (opened.warning and f"warning: {opened.warning}", opened.reason):
                if line:
                    self._tell(line)
        self._lost_starts = 0
        self._workers.append(_Worker(actor))
        self._slots.extend(self._workers[-1:] * _HELD)

    def _why_unfit(self, opened: OpenedNetwork | CisiError) -> CisiError | None:
        """Why a worker is of no use."""
        if isinstance(opened, CisiError):
            return opened
        if opened.version != self._version:  # it might make other pictures
            return ClusterError(
                f"{opened.machine} has cisi-net {opened.version}, expected {self._version} as on this machine"
            )
        return None

    def _take_result(self, reference: Any) -> Iterator[tuple[Job, JobSummary | CisiError]]:
        import ray

        worker, task = self._running.pop(reference)
        worker.held -= 1
        try:
            result = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            result = DataError(f"{task.job.image}: {_line(error.cause)}")
        except ray.exceptions.RayError as error:
            yield from self._lose(worker, task, _line(error))
            return
        if not worker.is_gone:
            self._slots.extend([worker] * (_HELD if worker.is_alone else 1))
            worker.is_alone = False
        yield task.job, result

    def _lose(self, worker: _Worker, task: _Task, reason: str) -> Iterator[tuple[Job, CisiError]]:
        """A worker is gone, with a photograph that it had."""
        import ray

        if not worker.is_gone:
            worker.is_gone = True
            self._workers.remove(worker)
            self._slots = deque(other for other in self._slots if other is not worker)
            self._looked_s = float("-inf")
            ray.kill(worker.actor)
        task.lost += 1
        if task.lost < MAX_LOST:
            self._again.append(task)
        else:
            yield task.job, DataError(f"{task.job.image}: not done, {task.lost} workers were lost over it: {reason}")

    def _end(self) -> None:
        """Wait for the photographs that workers hold, and end the workers, also when the waiting is interrupted."""
        import ray

        try:
            if self._running:
                ray.wait(list(self._running), num_returns=len(self._running), fetch_local=False)
        finally:
            for actor in (*self._starting.values(), *(worker.actor for worker in self._workers)):
                ray.kill(actor)


def _size(nodes: list[dict[str, float]]) -> str:
    cpus, gpus = (sum(int(node.get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
    return f"{cpus} CPU and {gpus} GPU"


def _line(error: Exception) -> str:
    """What an error says, in one line, without the lines with which Ray describes an actor."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(" ".join(lines[-1:]).split()) or type(error).__name__
