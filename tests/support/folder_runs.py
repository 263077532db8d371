"""Folder runs of tests: photographs with masks, and `cisi-run`, in a process of its own where it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from cisi_export.golden_cases import natural_picture
from cisi_runtime.batch.run_record import RECORD
from cisi_runtime.cli.run import main
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.writing import write_picture
from tests.support.commands import run_in_process

PROGRAM = [sys.executable, "-c", "import cisi_runtime.cli.run as m; m.main()"]
# `cisi-run` that gets a signal before the N-th file operation of one of its processes below a folder. An audit hook
# sees each of them, so nothing depends on how fast the machine is. Python runs this at the start of every process.
HOOK = """
import contextlib, itertools, os, sys
folder, at, signal_number = os.environ["INTERRUPT"].split("|")
first = int(os.environ.setdefault("INTERRUPT_FIRST", str(os.getpid())))
count = itertools.count(1)
def hook(event, arguments):
    if event in ("open", "os.rename") and str(arguments[0]).startswith(folder) and next(count) == int(at):
        with contextlib.suppress(FileExistsError):  # one process sends it
            os.mkdir(f"{folder}.sent.{first}")
            os.kill(first, int(signal_number))
sys.addaudithook(hook)
"""
SIZE = (160, 200)


def photographs(folder: Path, count: int, suffix: str = ".png") -> Path:
    """`photos`, the last of them in a folder of its own, with `masks` of the same names."""
    rng = np.random.default_rng(5)
    for number in range(count):
        name = f"below/{number}" if number == count - 1 else str(number)
        hole = np.zeros(SIZE, dtype=np.uint8)
        hole[20 + number : 60 + number, 30:80] = 255  # of 160 rows
        for place, pixels in (("photos", natural_picture(*SIZE, rng)), ("masks", np.dstack([hole] * 3))):
            path = folder / place / f"{name}{suffix if place == 'photos' else '.png'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, Picture(pixels))
    return folder


def touch(folder: Path, *names: str) -> None:
    """Empty files, with the folders above them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def cisi_run(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """The command in this process. more: as of `run_in_process`."""
    return run_in_process(main, *arguments, **more)


def cisi_run_alone(*arguments: object, **more: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)  # type: ignore[call-overload,no-any-return]


def interrupted_run(
    out: Path, operation: int, how: signal.Signals, *arguments: object
) -> subprocess.CompletedProcess[str]:
    """The same, with a signal before the N-th file operation below the folder of results."""
    hook = out.parent / "hook" / "sitecustomize.py"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(HOOK)
    environment = {"PYTHONPATH": str(hook.parent), "INTERRUPT": f"{out}|{operation}|{how.value}"}
    return cisi_run_alone(*arguments, "-o", out, "--threads", 2, env=os.environ | environment)


def put(path: Path, data: bytes) -> None:
    """Write a file that nobody sees unfinished."""
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.rename(path)


def files_below(folder: Path) -> set[str]:
    """All but what says of the run how it was made."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != RECORD)
    return {path.relative_to(folder).as_posix() for path in files}
