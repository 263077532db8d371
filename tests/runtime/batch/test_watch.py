"""`cisi-run --watch` as a process: what arrives is done, and what ends it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cisi_runtime.batch.report import FAILURES
from tests.support.folder_runs import cisi_run, files_below, photographs
from tests.support.service import wait_until
from tests.support.shared import TIMEOUT_S

# Half a second makes a file whole, and the folder is looked at every two seconds.
PROGRAM = """
import cisi_runtime.batch.watch as watch
watch.STABLE_S, watch._LOOK_S = 0.5, 2.0
import cisi_runtime.cli.run as run
run.main()
"""


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
