"""`Watch` in a thread: a file is done once it is whole, a failure is tried again, and what ends it."""

import json
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

from cisi_runtime.batch import watch as module
from cisi_runtime.batch.folder import plan_folder
from cisi_runtime.batch.job import Job, JobSummary
from cisi_runtime.batch.plan import Plan
from cisi_runtime.batch.report import FAILURES, RunReport
from cisi_runtime.batch.watch import Watch
from cisi_runtime.errors import CisiError, DataError
from cisi_runtime.storage.access import find_names
from tests.support.folder_runs import files_below, put
from tests.support.service import wait_until
from tests.support.shared import TIMEOUT_S

# What a file ends with that `Watched` takes as whole.
END = b"end"


def finish(job: Job) -> JobSummary:
    """Stands for the network: copies a file that is whole."""
    assert isinstance(job.image, Path)
    assert isinstance(job.output, Path)
    data = job.image.read_bytes()
    if not data.endswith(END):
        raise DataError("not whole")
    job.output.write_bytes(data)
    return JobSummary(True, 0, "")


class Watched:
    """`Watch` in a thread, with `finish` for `in` and `out` of a folder.

    results: what it gave so far. looks: how often it looked. on_look: called before each look.
    """

    def __init__(self, folder: Path, run: Callable[[Job], JobSummary] = finish, pool: Any = None) -> None:
        self.folder, self.results = folder, list[tuple[str, JobSummary | CisiError]]()
        self.looks = 0
        self.on_look: Callable[[], object] = lambda: None
        (folder / "in").mkdir(exist_ok=True)
        self.watch = Watch(self._plan, [folder / "in"], folder / "out", 4)
        self._run, self._pool = run, pool or ThreadPoolExecutor(2)
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _plan(self) -> Plan:
        self.looks += 1
        self.on_look()
        return plan_folder(self.folder / "in", None, self.folder / "out", may_be_empty=True)

    def _follow(self) -> None:
        for job, result in self.watch.run(self._run, self._pool):
            self.results.append((job.image.name, result))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: condition() or not self._thread.is_alive())
        assert condition(), self.results

    def __enter__(self) -> "Watched":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.watch.stop()
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STABLE_S", 0.1)


@pytest.mark.usefixtures("_quick")
def test_a_file_that_grows_is_not_touched(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    path, last = tmp_path / "in" / "a.png", [0.0]

    def grow() -> None:
        """It is longer at each of twenty looks, so no two see the same file, however long they are apart."""
        if watched.looks <= 20:
            with path.open("ab") as file:
                file.write(END)
            last[0] = time.monotonic()

    watched.on_look = grow
    with watched:
        watched.wait_for(lambda: len(watched.results) > 0)
        assert time.monotonic() - last[0] >= module.STABLE_S
    ((name, result),) = watched.results
    assert name == "a.png"
    assert isinstance(result, JobSummary)
    assert (tmp_path / "out" / "a.png").read_bytes() == 20 * END


@pytest.mark.usefixtures("_quick")
def test_a_failure_is_tried_again_when_the_file_changes_and_not_before(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.png"
    path.write_bytes(b"half")
    with Watched(tmp_path) as watched:
        watched.wait_for(lambda: len(watched.results) == 1)
        # Looks for another's sake leave it alone.
        for number in range(3):
            put(tmp_path / "in" / f"{number}.png", END)
            watched.wait_for(lambda number=number: len(watched.results) == 2 + number)  # type: ignore[misc]
        assert [name for name, _ in watched.results] == ["a.png", "0.png", "1.png", "2.png"]
        with path.open("ab") as file:
            file.write(END)
        watched.wait_for(lambda: len(watched.results) == 5)
    assert watched.results[-1][0] == "a.png"
    assert [isinstance(result, JobSummary) for _, result in watched.results] == [False, True, True, True, True]


class Silent:
    """An observer that hears nothing, as of a network drive."""

    def schedule(self, *_: object, **__: object) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def join(self) -> None: ...


@pytest.mark.usefixtures("_quick")
def test_a_drive_that_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchdog.observers.Observer", Silent)
    monkeypatch.setattr(module, "_LOOK_S", 0.1)
    with Watched(tmp_path) as watched:
        watched.wait_for(lambda: watched.looks >= 2)
        (tmp_path / "in" / "below").mkdir()
        put(tmp_path / "in" / "below" / "a.png", END)
        watched.wait_for((tmp_path / "out" / "below" / "a.png").exists)
        watched.wait_for(lambda: len(watched.results) == 1)


@pytest.mark.usefixtures("_quick")
def test_news_are_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 100.0 * TIMEOUT_S)
    with Watched(tmp_path) as watched:
        watched.wait_for(lambda: watched.looks >= 1)
        put(tmp_path / "in" / "a.png", END)
        watched.wait_for(lambda: len(watched.results) == 1)


@pytest.mark.usefixtures("_quick")
def test_a_folder_for_the_result_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "in" / "below").mkdir(parents=True)
    (tmp_path / "in" / "below" / "a.png").write_bytes(END)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "below").write_text("a file")
    with Watched(tmp_path) as watched:
        watched.wait_for(lambda: len(watched.results) == 1)
    assert "below: the folder cannot be made" in str(watched.results[0][1])


@pytest.mark.usefixtures("_quick")
def test_links_below_the_output(tmp_path: Path) -> None:
    for name in ("below/a.png", "back/b.png", "originals/b.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).write_bytes(END)
    for folder in ("out", "far"):
        (tmp_path / folder).mkdir()
    (tmp_path / "out" / "below").symlink_to(tmp_path / "far")
    (tmp_path / "out" / "back").symlink_to(tmp_path / "in" / "originals")
    with Watched(tmp_path) as watched:
        watched.wait_for(lambda: len(watched.results) >= 3)
        looks = watched.looks
        put(tmp_path / "in" / "c.png", END)
        watched.wait_for(lambda: watched.looks >= looks + 2 and len(watched.results) >= 4)
    # Each once: what lies behind a link is not made again.
    assert sorted(name for name, _ in watched.results) == ["a.png", "b.png", "b.png", "c.png"]
    (failure,) = [str(result) for _, result in watched.results if isinstance(result, CisiError)]
    assert "back: is a link into" in failure
    assert (tmp_path / "far" / "a.png").exists()
    assert (tmp_path / "in" / "originals" / "b.png").read_bytes() == END


class Broken(ThreadPoolExecutor):
    """A pool whose worker has been killed."""

    def submit(self, *_: Any, **__: Any) -> Any:
        future: Future[Any] = Future()
        future.set_exception(BrokenProcessPool("gone"))
        return future


class Refusing(ThreadPoolExecutor):
    def submit(self, *_: Any, **__: Any) -> Any:
        raise BrokenProcessPool("gone")


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("pool", [Broken, Refusing])
def test_a_worker_that_is_killed_ends_it(tmp_path: Path, pool: type[ThreadPoolExecutor]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(END)
    with Watched(tmp_path, pool=pool(1)) as watched:
        watched._thread.join(TIMEOUT_S)
        assert not watched._thread.is_alive()
    ((name, result),) = watched.results
    assert name == "a.png"
    assert str(result).endswith("a.png: not done, because a worker was killed, perhaps for want of memory")


@pytest.mark.usefixtures("_quick")
def test_stop_finishes_what_is_being_worked_on_and_begins_nothing(tmp_path: Path) -> None:
    begun, may_end = threading.Semaphore(0), threading.Event()

    def slowly(job: Job) -> JobSummary:
        begun.release()
        assert may_end.wait(TIMEOUT_S)
        return finish(job)

    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.png").write_bytes(END)
    with Watched(tmp_path, slowly) as watched:
        for _ in range(2):
            assert begun.acquire(timeout=TIMEOUT_S)
        watched.watch.stop()
        may_end.set()
    # Of the four that the pool held at least the two that had begun are done.
    assert 2 <= len(watched.results) <= 4
    assert all(isinstance(result, JobSummary) for _, result in watched.results)
    assert {name for name, _ in watched.results} == files_below(tmp_path / "out")


def test_a_photograph_that_failed_and_was_done_later_has_not_failed(tmp_path: Path) -> None:
    first, second = (Job(tmp_path / name, None, tmp_path / "out" / name) for name in ("a.png", "b.png"))
    other_mask = Job(tmp_path / "b.png", tmp_path / "mask.png", tmp_path / "out" / "b.png")
    (tmp_path / "out").mkdir()
    with RunReport(tmp_path / "out", 0) as report:
        for reason in ("half", "still half"):
            assert report.add(first, DataError(reason)) == f"{tmp_path / 'a.png'}: {reason}"
        report.add(second, DataError("bad"))
        report.write_failures()
        lines = (tmp_path / "out" / FAILURES).read_text().splitlines()
        assert [json.loads(line)["reason"].rpartition(": ")[2] for line in lines] == ["still half", "bad"]
        assert report.failed == 2
        report.add(first, JobSummary(True, 0, ""))
        report.add(other_mask, JobSummary(True, 0, ""))
        report.write_failures()
        assert (report.written, report.failed) == (2, 0)
    assert files_below(tmp_path / "out") == set()


def test_a_folder_that_is_removed_while_it_is_listed(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    names = find_names(tmp_path)
    assert next(names) == []
    shutil.rmtree(tmp_path / "a")
    assert list(names) == [["b/2.png"]]
    with pytest.raises(DataError, match="cannot be listed"):
        list(find_names(tmp_path / "a"))
