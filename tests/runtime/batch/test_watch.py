"""A folder that is watched: what arrives is done once it is whole, and what ends it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
from cisi_runtime.batch.run_record import RECORD
from cisi_runtime.batch.watch import Watch
from cisi_runtime.errors import CisiError, DataError
from cisi_runtime.storage.access import find_names
from tests.runtime.batch.test_folder import cisi_run, photographs
from tests.support.service import wait_until
from tests.support.shared import TIMEOUT_S

# Half a second makes a file whole, and the folder is looked at every two seconds.
PROGRAM = """
import cisi_runtime.batch.watch as watch
watch.STABLE_S, watch._LOOK_S = 0.5, 2.0
import cisi_runtime.cli.run as run
run.main()
"""
# What a file ends with that `Watched` takes as whole.
END = b"end"


class Running:
    """`cisi-run --watch` as a process in a folder, with results in `out` unless said otherwise."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self.process, self.folder = process, folder

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        wait_until(lambda: condition() or self.process.poll() is not None)
        assert condition(), f"it ended: {self.stderr}"

    def wait_for_results(self, *names: str, out: str = "out") -> None:
        self.wait_for(lambda: all((self.folder / out / name).exists() for name in names))

    def ended(self, number: signal.Signals | None = None) -> int:
        """Its exit status, after a signal."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)


@contextlib.contextmanager
def watching(folder: Path, *arguments: object, hook: str = "") -> Iterator[Running]:
    """hook: Python that runs at the start of every process."""
    environment = dict(os.environ)
    if hook:
        (folder / "hook").mkdir()
        (folder / "hook" / "sitecustomize.py").write_text(hook)
        environment["PYTHONPATH"] = str(folder / "hook")
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments), "--watch"]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(command, cwd=folder, stdout=out, stderr=err, env=environment)
    try:
        running = Running(process, folder)
        running.wait_for(lambda: "watching" in running.stderr)
        yield running
    finally:
        process.kill()
        process.wait(TIMEOUT_S)


def put(path: Path, data: bytes) -> None:
    """Write a file that nobody sees unfinished."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.rename(path)


def files_below(folder: Path) -> set[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix() for path in files}


def test_what_is_there_and_what_arrives(tmp_path: Path, tiny_graph: Path) -> None:
    ready = photographs(tmp_path / "ready", 6)
    options = ("--mask", "masks", "--model", tiny_graph, "--threads", 1)
    expected = cisi_run("photos", *options, "-o", "out", cwd=ready)
    assert expected.returncode == 0, expected.stderr
    (tmp_path / "masks" / "new").mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    shutil.copy(ready / "masks/0.png", tmp_path / "masks/0.png")
    shutil.copy(ready / "photos/0.png", tmp_path / "photos/0.png")
    with watching(tmp_path, "photos", *options, "-o", "out") as running:
        running.wait_for_results("0.png")
        # Into a folder that is new.
        shutil.copy(ready / "masks/1.png", tmp_path / "masks/new/1.png")
        (tmp_path / "photos/new/deep").mkdir(parents=True)
        shutil.copy(ready / "photos/1.png", tmp_path / "photos/new/1.png")
        # By rename.
        for place in ("masks", "photos"):
            shutil.copy(ready / place / "2.png", tmp_path / place / "2.part")
            (tmp_path / place / "2.part").rename(tmp_path / place / "2.png")
        # A folder that is moved in.
        for place in ("masks", "photos"):
            shutil.copytree(ready / place / "below", tmp_path / "moved" / place)
            (tmp_path / "moved" / place).rename(tmp_path / place / "below")
        # The mask after the photograph.
        shutil.copy(ready / "photos/3.png", tmp_path / "photos/3.png")
        running.wait_for_results("new/1.png", "2.png", "below/5.png")
        shutil.copy(ready / "masks/3.png", tmp_path / "masks/3.png")
        running.wait_for_results("3.png")
        assert running.ended(signal.SIGINT) == 0, running.stderr
    assert f"out: 5 written, 0 there already, 0 failed{os.linesep}" in running.stdout
    names = {"0.png": "0.png", "new/1.png": "1.png", "2.png": "2.png", "below/5.png": "below/5.png", "3.png": "3.png"}
    assert files_below(tmp_path / "out") == set(names)
    for name, same in names.items():
        assert (tmp_path / "out" / name).read_bytes() == (ready / "out" / same).read_bytes()
    # Results are kept. A photograph may be taken away when it is done.
    (tmp_path / "out/2.png").unlink()
    with watching(tmp_path, "photos", *options, "-o", "out") as running:
        running.wait_for_results("2.png")
        shutil.rmtree(tmp_path / "photos/new")
        (tmp_path / "photos/2.png").unlink()
        assert running.ended(signal.SIGTERM) == 0, running.stderr
    assert "out: 1 written, 4 there already, 0 failed" in running.stdout


def test_a_copy_that_pauses_fails_and_is_done_when_it_is_whole(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 2, ".jpg")
    data = (tmp_path / "photos/0.jpg").read_bytes()
    (tmp_path / "photos/0.jpg").write_bytes(data[: len(data) // 2])
    options = ("--mask", "masks", "-o", "out", "--model", tiny_graph, "--threads", 1)
    with watching(tmp_path, "photos", *options) as running:
        running.wait_for(lambda: "IMAGE: photos/0.jpg: " in running.stderr)
        with (tmp_path / "photos/0.jpg").open("ab") as file:
            file.write(data[len(data) // 2 :])
        running.wait_for_results("0.jpg", "below/1.jpg")
        assert running.ended(signal.SIGINT) == 0, running.stderr
    assert "out: 2 written, 0 there already, 0 failed" in running.stdout
    assert files_below(tmp_path / "out") == {"0.jpg", "below/1.jpg"}


def test_masks_beside_photographs_and_results_inside(tmp_path: Path, tiny_graph: Path) -> None:
    made = photographs(tmp_path / "made", 4)
    inside = tmp_path / "in"
    inside.mkdir()
    # Two processes.
    with watching(tmp_path, "in", "-o", "in/out", "--model", tiny_graph, "--threads", 2) as running:
        for number in range(3):
            shutil.copy(made / f"photos/{number}.png", inside / f"{number}.png")
            shutil.copy(made / f"masks/{number}.png", inside / f"{number}.mask.png")
            running.wait_for_results(f"{number}.png", out="in/out")
        assert running.ended(signal.SIGTERM) == 0, running.stderr
    assert "in/out: 3 written, 0 there already, 0 failed" in running.stdout
    assert files_below(inside / "out") == {"0.png", "1.png", "2.png"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_failures_are_listed_at_the_end(tmp_path: Path, tiny_graph: Path, number: signal.Signals) -> None:
    photographs(tmp_path, 3)
    (tmp_path / "photos/0.png").write_bytes(b"no picture")
    (tmp_path / "masks/1.png").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / FAILURES).write_text(
        '{"image": "a", "mask": null, "output": "b", "reason": "of an earlier run"}\n'
    )
    options = ("--mask", "masks", "-o", "out", "--model", tiny_graph, "--threads", 1)
    with watching(tmp_path, "photos", *options) as running:
        running.wait_for_results("below/2.png")
        running.wait_for(lambda: "IMAGE: photos/0.png: not a picture" in running.stderr)
        assert running.ended(number) == 1
    assert "1 written, 0 there already, 2 failed" in running.stdout
    assert "photos/1.png: expected one mask of this name in masks, found none" in running.stderr
    assert "cisi-run: error: photos: 2 photographs failed, named in out/failures.jsonl" in running.stderr
    assert "Traceback" not in running.stderr
    entries = [json.loads(line) for line in (tmp_path / "out" / FAILURES).read_text().splitlines()]
    assert [entry["image"] for entry in entries] == ["photos/0.png", "photos/1.png"]
    assert files_below(tmp_path / "out") == {"below/2.png", FAILURES}


# A worker that never finishes a photograph.
STUCK = """
import os, pathlib, sys, time
def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("photos/0.png") and "spawn_main" in " ".join(sys.orig_argv):
        pathlib.Path(f"{os.getpid()}.stuck").touch()
        time.sleep(1e6)
sys.addaudithook(hook)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which signals a process catches")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_second_signal_does_not_wait(tmp_path: Path, tiny_graph: Path, number: signal.Signals, status: int) -> None:
    photographs(tmp_path, 2)
    options = ("--mask", "masks", "-o", "out", "--model", tiny_graph, "--threads", 2)
    with watching(tmp_path, "photos", *options, hook=STUCK) as running:
        running.wait_for(lambda: any(tmp_path.glob("*.stuck")))

        def catches_sigterm() -> bool:
            lines = Path(f"/proc/{running.process.pid}/status").read_text().splitlines()
            caught = int(next(line for line in lines if line.startswith("SigCgt:")).split()[1], 16)
            return bool(caught >> (signal.SIGTERM - 1) & 1)

        assert catches_sigterm()
        running.process.send_signal(number)
        running.wait_for(lambda: not catches_sigterm())
        assert running.ended(number) == status
    (worker,) = tmp_path.glob("*.stuck")

    def is_gone() -> bool:
        try:
            return not Path(f"/proc/{worker.stem}/cmdline").read_bytes()  # it has ended, and nobody has asked
        except OSError:
            return True

    wait_until(is_gone)
    assert "Traceback" not in running.stderr


def test_the_folder_is_removed(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 3)
    options = ("--mask", "masks", "-o", "out", "--model", tiny_graph, "--threads", 1)
    with watching(tmp_path, "photos", *options) as running:
        running.wait_for_results("0.png", "1.png", "below/2.png")
        shutil.rmtree(tmp_path / "photos")
        assert running.ended() == 1
    assert "photos: cannot be listed: No such file or directory" in running.stderr.splitlines()[-1]
    assert "Traceback" not in running.stderr


def test_without_watchdog(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 2)
    program = "import sys; sys.modules['watchdog'] = None; import cisi_runtime.cli.run as m; m.main()"
    arguments = ["photos", "--mask", "masks", "-o", "out", "--model", str(tiny_graph), "--watch"]
    command = [sys.executable, "-c", program, *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == ("cisi-run: error: needs watchdog: pip install 'cisi-net[watch]'\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", "--mask", "masks", "-o", "s3://out"], "--watch is for a folder of this machine"),
        (["photos", "--mask", "s3://masks", "-o", "out"], "--watch is for a folder of this machine"),
        (["--manifest", "list.csv", "-o", "out"], "--watch is for a folder of this machine"),
        (["photos", "-o", "out", "--overwrite"], "--watch goes with neither --cluster nor --overwrite"),
        (["photos", "-o", "out", "--cluster", "local"], "--watch goes with neither --cluster nor --overwrite"),
        (["photos/0.png", "--mask", "masks/0.png", "-o", "o.png"], "--watch is for folders"),
    ],
)
def test_usage(tmp_path: Path, arguments: list[str], words: str) -> None:
    photographs(tmp_path, 2)
    result = cisi_run(*arguments, "--watch", cwd=tmp_path)
    assert result.returncode == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


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
