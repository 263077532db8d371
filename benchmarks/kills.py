"""`python -m benchmarks.kills --kills 1000`: folder runs that are killed, and what they leave.

A run is `cisi-run FOLDER -o OUT` with two workers and tiny photographs. It is killed with SIGKILL, alone or with its
workers: half of the times at a random moment, half of the times right before a file operation in OUT, such as a rename.
Then every file in OUT must be whole, and the same command must end with the bytes of a run that nobody disturbed: of
results, run record, list of failures and counts. The exit status is 1 otherwise.

Processes are forked, workers too, where the command spawns them: a kill would cost seconds of imports.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
import os
import random
import select
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NoReturn

import click
import numpy as np
import onnxruntime
from PIL import Image

from benchmarks.throughput import PHOTOS
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH
from cisi_runtime.batch.report import FAILURES
from cisi_runtime.cli import run, run_many

# What the command imports when it is needed is there before the first fork.
_IMPORTED = (onnxruntime, run_many)
_WORKERS = 2
_GOOD = 6
# Of a photograph, in pixels.
_SIDE = 16
# A worker does some eight operations in OUT for half of these photographs.
_OPERATIONS = 16
# Longer than any run, however busy the machine is. It only ends one that hangs.
_TIMEOUT_S = 300.0

# The files of a folder by their names below it.
_Files = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class Kill:
    """When a run is killed. delay_s: after its start, None: before its file operation in OUT of this number.

    is_alone: its workers are left to notice.
    """

    delay_s: float | None
    operation: int
    is_alone: bool


@dataclasses.dataclass(frozen=True)
class Ended:
    """A run that has ended. status: of the process, negative for a signal. report: its JSON, None where it wrote none.

    seconds: duration.
    """

    status: int
    report: dict[str, object] | None
    seconds: float


class Killed:
    """What became of runs that were killed.

    counts: of kills by what they hit. violations: a line for each promise that was broken.
    """

    def __init__(self, folder: Path, graph: Path, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self._kill: Kill | None = None
        self._folder, self._seed = folder, seed
        self._model = ("--model", str(graph), "--threads", str(_WORKERS), "--no-detail", "--json", "--quiet")
        _write_photographs(folder / "good", folder / "mixed")
        self._undisturbed = {
            (name, dilate): self._reference(name, dilate) for name in ("good", "mixed") for dilate in ("0", "3")
        }

    def run(self, kills: int) -> None:
        """Kill this many runs. One that ends before its kill is not counted."""
        length_s = statistics.median(ended.seconds for ended, _ in self._undisturbed.values())
        scenarios = itertools.cycle((self._fresh, self._again, self._with_other_options))
        for attempt in itertools.count():
            if self.counts.total() >= kills:
                return
            # By the attempt's number: how long the others took changes nothing.
            chance = random.Random(f"{self._seed} {attempt}")
            at = chance.uniform(0, 1.1 * length_s) if chance.random() < 0.5 else None
            self._kill = Kill(at, chance.randint(1, _OPERATIONS), chance.random() < 0.5)
            before = self.counts.total()
            next(scenarios)(self._kill)
            if self.counts.total() > before and self.counts.total() % 100 == 0:
                click.echo(f"{self.counts.total()} kills, {len(self.violations)} violations", err=True)

    def _fresh(self, kill: Kill) -> None:
        """The first run into a folder."""
        shutil.rmtree(self._out("mixed"), ignore_errors=True)
        self._kill_and_resume("mixed", "0", kill)

    def _again(self, kill: Kill) -> None:
        """A run that replaces results with the same bytes."""
        self._kill_and_resume("mixed", "0", kill, "--overwrite")

    def _with_other_options(self, kill: Kill) -> None:
        """A run that replaces results with others. Until it has replaced all, the command is refused without
        --overwrite."""
        shutil.rmtree(self._out("good"), ignore_errors=True)
        self._command("good", "0")
        if not self._killed("good", "3", kill, "--overwrite"):
            return
        self._check_whole("good", ("0", "3"))
        resumed = self._command("good", "3")
        if resumed.report is None:
            resumed = self._command("good", "3", "--overwrite")
        self._check_complete("good", "3", resumed)

    def _kill_and_resume(self, name: str, dilate: str, kill: Kill, *more: str) -> None:
        if self._killed(name, dilate, kill, *more):
            self._check_whole(name, (dilate,))
            self._check_complete(name, dilate, self._command(name, dilate))

    def _killed(self, name: str, dilate: str, kill: Kill, *more: str) -> bool:
        ended = self._command(name, dilate, *more, kill=kill)
        if ended.status != -signal.SIGKILL:
            self._check_complete(name, dilate, ended)
            return False
        self.counts["at a moment" if kill.delay_s is not None else "at a file operation"] += 1
        return True

    def _check_whole(self, name: str, dilates: tuple[str, ...]) -> None:
        """Every file that has its name is that of an undisturbed run. The run record may say more (see `RunRecord`)."""
        for file, data in _files_below(self._out(name)).items():
            expected = [self._undisturbed[name, dilate][1].get(file) for dilate in dilates]
            if not Path(file).name.startswith(".") and data not in expected:
                self._violation(f"{file}: other bytes than those of an undisturbed run after a kill")

    def _check_complete(self, name: str, dilate: str, ended: Ended) -> None:
        before, files = self._undisturbed[name, dilate]
        found = _files_below(self._out(name))
        for file in sorted({*found, *files}):
            if found.get(file) != files.get(file):
                what = "is missing" if file not in found else "is left" if file not in files else "has other bytes"
                self._violation(f"{file}: {what} when the command has ended")
        if ended.status != before.status or _told(ended) != _told(before):
            self._violation(
                f"status {ended.status}, report {ended.report}; undisturbed {before.status}, {before.report}"
            )

    def _violation(self, line: str) -> None:
        self.violations.append(f"kill {self.counts.total()}, {self._kill}: {line}")

    def _reference(self, name: str, dilate: str) -> tuple[Ended, _Files]:
        out = self._out(name)
        shutil.rmtree(out, ignore_errors=True)
        ended = self._command(name, dilate)
        files = _files_below(out)
        for file in files:
            if Path(file).suffix in (".png", ".jpg"):
                with Image.open(out / file) as image:
                    image.load()
        assert sum(Path(file).suffix in (".png", ".jpg") for file in files) == _GOOD, ended
        assert (FAILURES in files) == (name == "mixed"), ended
        return ended, files

    def _out(self, name: str) -> Path:
        return self._folder / f"{name}.out"

    def _command(self, name: str, dilate: str, *more: str, kill: Kill | None = None) -> Ended:
        arguments = (str(self._folder / name), "-o", str(self._out(name)), "--dilate", dilate, *self._model, *more)
        return _run(arguments, self._folder / "report.json", str(self._out(name)), kill)


def _run(arguments: tuple[str, ...], report: Path, out: str, kill: Kill | None) -> Ended:
    """`cisi-run` in a forked process. Returns when all its processes have ended."""
    ended, alive = os.pipe()  # every process of the run holds `alive`
    start = time.perf_counter()
    process = os.fork()
    if process == 0:
        os.close(ended)
        _run_here(arguments, report, out, kill)
    os.close(alive)
    if kill is not None and kill.delay_s is not None and not select.select([ended], [], [], kill.delay_s)[0]:
        _kill(process, is_alone=kill.is_alone)
    if not select.select([ended], [], [], _TIMEOUT_S)[0]:
        raise TimeoutError(f"a process of {' '.join(arguments)} has not ended within {_TIMEOUT_S:.0f} s")
    seconds = time.perf_counter() - start
    os.close(ended)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    text = report.read_text() if status >= 0 else ""
    return Ended(status, json.loads(text) if text else None, seconds)


def _run_here(arguments: tuple[str, ...], report: Path, out: str, kill: Kill | None) -> NoReturn:
    """What the forked process does."""
    status = 70
    try:
        os.setpgid(0, 0)
        for number, path in ((1, report), (2, report.with_suffix(".log"))):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if kill is not None and kill.delay_s is None:
            _kill_before_operation(os.getpid(), out, kill)
        forked = multiprocessing.get_context("fork")
        multiprocessing.get_context = lambda _: forked  # type: ignore[assignment]
        sys.argv = ["cisi-run", *arguments]
        run.main()
        status = 0
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _kill_before_operation(process: int, out: str, kill: Kill) -> None:
    """Kill a run before one of its processes, this one or a worker, does its file operation of this number in OUT."""
    count = itertools.count(1)

    def hook(event: str, values: tuple[object, ...]) -> None:
        is_below = event in ("open", "os.rename", "os.remove") and str(values[0]).startswith(out)
        if is_below and next(count) == kill.operation:
            _kill(process, is_alone=kill.is_alone)

    sys.addaudithook(hook)


def _kill(process: int, *, is_alone: bool) -> None:
    try:
        if is_alone:
            os.kill(process, signal.SIGKILL)
        else:
            os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:  # not yet a group of its own, or ended
        os.kill(process, signal.SIGKILL)


def _told(ended: Ended) -> object:
    """What a report tells that does not depend on how often the run was begun."""
    report = ended.report
    if report is None:
        return None
    return report["failed"], int(str(report["written"])) + int(str(report["existing"])), report["failures"]


def _files_below(folder: Path) -> _Files:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _write_photographs(good: Path, mixed: Path) -> None:
    """Two folders with masks beside the photographs. `mixed` also has one that is damaged, and one without a mask."""
    source = Image.open(next(path for path in sorted(PHOTOS.glob("*.jpg")) if path.stem != "demo")).convert("RGB")
    mask = np.zeros((_SIDE, _SIDE), dtype=np.uint8)
    mask[7:9, 7:9] = 255
    for folder in (good, mixed):
        (folder / "below").mkdir(parents=True)
        for number in range(_GOOD):
            place = folder / "below" if number == 0 else folder
            piece = source.crop((_SIDE * number, 0, _SIDE * (number + 1), _SIDE))
            piece.save(place / f"{number}.{'jpg' if number % 2 else 'png'}")
            Image.fromarray(mask).save(place / f"{number}.mask.png")
    (mixed / "damaged.png").write_bytes((mixed / "2.png").read_bytes()[:-30])
    Image.fromarray(mask).save(mixed / "damaged.mask.png")
    source.crop((0, 0, _SIDE, _SIDE)).save(mixed / "without.png")


@click.command()
@click.argument("graph", type=click.Path(path_type=Path, exists=True), default=SHIPPED_INT8_GRAPH)
@click.option("--kills", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", type=int, default=None, help="Of moments and operations.  [default: a new one]")
def main(graph: Path, kills: int, seed: int | None) -> None:
    """Kill folder runs with GRAPH (default: the INT8 graph that ships)."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    click.echo(f"seed {seed}")
    start = time.perf_counter()
    Image.init()
    with tempfile.TemporaryDirectory() as folder:
        killed = Killed(Path(folder), graph, seed)
        killed.run(kills)
    for line in killed.violations:
        click.echo(line)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(killed.counts.items()))
    verdict = "FAIL" if killed.violations else "pass"
    seconds = time.perf_counter() - start
    click.echo(f"{kills} kills ({kinds}) in {seconds:.0f} s, {len(killed.violations)} violations  {verdict}")
    sys.exit(bool(killed.violations))


if __name__ == "__main__":
    main()
