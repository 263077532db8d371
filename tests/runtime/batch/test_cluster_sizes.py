"""How many workers a run starts on a cluster, and what it does about those that cannot start; Ray is simulated."""

import itertools
import sys
import types
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.batch import cluster as cluster_module
from cisi_runtime.batch.cluster import MAX_LOST, ClusterOptions
from cisi_runtime.batch.cluster_worker import OpenedNetwork
from cisi_runtime.batch.job import Job, JobSummary
from cisi_runtime.batch.photograph import PhotographOptions
from cisi_runtime.batch.workers import WorkerOptions
from cisi_runtime.errors import ClusterError


class Reference(NamedTuple):
    """What a call of an actor will return."""

    method: str
    actor: "Actor"
    number: int


class Actor:
    """A worker. It waits for a CPU before it starts."""

    _numbers = itertools.count()

    def __init__(self) -> None:
        self.open = types.SimpleNamespace(remote=lambda *_: Reference("open", self, next(self._numbers)))
        self.run = types.SimpleNamespace(remote=lambda *_: Reference("run", self, next(self._numbers)))


class SimulatedRay(types.ModuleType):
    """A cluster of nodes with these CPUs, of which other jobs have some. starts: whether the actor of a number starts;
    one that does not dies at once, and leaves its CPU."""

    class exceptions:  # noqa: N801
        """Ray's module of that name."""

        class RayError(Exception):
            """A worker is gone."""

        class RayTaskError(RayError):
            """A call raised."""

    def __init__(self, cpus: list[int], taken: int = 0, starts: Callable[[int], bool] = lambda _: True) -> None:
        super().__init__("ray")
        self.cpus, self._taken, self._starts = cpus, taken, starts
        self.started = self.waiting = 0
        self._placed: list[Actor] = []

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": str(n), "Alive": True, "Resources": {"CPU": cpus}} for n, cpus in enumerate(self.cpus)]

    def available_resources(self) -> dict[str, float]:
        return {"CPU": sum(self.cpus) - self._taken - len(self._placed)}

    def put(self, value: Any) -> Any:
        return value

    def kill(self, actor: Actor) -> None:
        self._placed = [other for other in self._placed if other is not actor]

    def remote(self, _: type) -> Any:
        return types.SimpleNamespace(options=lambda **_: types.SimpleNamespace(remote=lambda *_: Actor()))

    def wait(self, references: list[Reference], **_: object) -> tuple[list[Reference], list[Reference]]:
        opening = [reference for reference in references if reference.method == "open"]
        for reference in opening:
            if self.available_resources()["CPU"] > 0:
                self._placed.append(reference.actor)
                return [reference], []
        self.waiting = max(self.waiting, len(opening))
        return [reference for reference in references if reference.method == "run"][:1], []

    def get(self, reference: Reference) -> Any:
        if reference.method == "run":
            return JobSummary(0.1, 0, "")
        self.started += 1
        if not self._starts(self.started):
            self.kill(reference.actor)
            raise self.exceptions.RayError("No module named 'cisi_runtime'")
        return OpenedNetwork("x", None, version("cisi-net"), "a machine")


def run(ray: SimulatedRay, told: list[str], monkeypatch: pytest.MonkeyPatch, options: ClusterOptions) -> int:
    """The number of photographs of 100 that were done."""
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(cluster_module, "_LOOK_S", 0.0)
    worker = WorkerOptions(None, BackendOptions(threads=1), detail=False, job=PhotographOptions())
    jobs = (Job(Path(f"{number}.png"), None, Path("out") / f"{number}.png") for number in range(100))
    results = cluster_module._Workers(options, worker, None, told.append).run(jobs)
    return sum(isinstance(result, JobSummary) for _, result in results)


def test_a_shared_cluster_is_not_made_to_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimulatedRay([4, 4], taken=5)
    assert run(ray, [], monkeypatch, ClusterOptions("auto")) == 100
    assert (ray.started, ray.waiting) == (3, 0)


def test_workers_that_are_asked_for_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimulatedRay([4, 4], taken=5)
    assert run(ray, [], monkeypatch, ClusterOptions("auto", workers=6)) == 100
    assert (ray.started, ray.waiting) == (3, 3)


def test_a_place_where_no_worker_starts_is_given_up_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    ray = SimulatedRay([1, 1], starts=lambda number: number == 1)
    assert run(ray, told, monkeypatch, ClusterOptions("auto")) == 100
    assert ray.started == 1 + MAX_LOST
    assert told[1:] == [
        f"a worker is not used: {MAX_LOST} workers were lost while they started: No module named 'cisi_runtime'"
    ]


def test_a_run_ends_where_no_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SimulatedRay([1, 1], starts=lambda _: False)
    with pytest.raises(ClusterError, match=f"^{2 * MAX_LOST} workers were lost while they started"):
        run(ray, [], monkeypatch, ClusterOptions("auto"))


def test_a_start_that_is_lost_with_the_last_node_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def starts(number: int) -> bool:
        # The node has gone with it, and comes back when that has been noticed.
        ray.cpus = [] if number == 1 else [1]
        return number > 1

    def sleep(_: float) -> None:
        ray.cpus = [1]

    ray = SimulatedRay([1], starts=starts)
    monkeypatch.setattr(cluster_module, "time", types.SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))
    assert run(ray, told, monkeypatch, ClusterOptions("auto")) == 100
