"""A command's main function run in the process of the tests: a process of its own takes half a second to start."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, cast
from unittest import mock

from cisi_runtime.console import LOUDNESS


def run_in_process(
    main: Callable[[], None],
    *arguments: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Exit status, stdout and stderr of a command, what its libraries and its children write there among them.

    What else a command changes in its process (loudness, arguments, folder, environment) is as before at the end. Tests
    of what a process loads, of its memory, of signals and of pipes start one.
    """
    words = ["cisi", *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_loudness_kept())
            stack.enter_context(mock.patch.object(sys, "argv", words))
            if env is not None:
                stack.enter_context(mock.patch.dict(os.environ, env, clear=True))
            if cwd is not None:
                stack.enter_context(contextlib.chdir(cwd))
            stack.enter_context(_redirected("stdout", out))
            stack.enter_context(_redirected("stderr", err))
            status = _status(main)
        return subprocess.CompletedProcess(words, status, _text(out), _text(err))


def _status(main: Callable[[], None]) -> int:
    try:
        main()
    except SystemExit as stopped:
        # As Python does where a program ends: None is success, and words are a failure.
        return stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    return 0


@contextlib.contextmanager
def _loudness_kept() -> Iterator[None]:
    before = {field.name: getattr(LOUDNESS, field.name) for field in dataclasses.fields(LOUDNESS)}
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(LOUDNESS, name, value)


@contextlib.contextmanager
def _redirected(name: str, file: IO[bytes]) -> Iterator[None]:
    """`sys.stdout` or `sys.stderr`, and the descriptor under it, which libraries and children write to."""
    # As Python opens them.
    number, errors = {"stdout": (1, "strict"), "stderr": (2, "backslashreplace")}[name]
    before = os.dup(number)
    try:
        os.dup2(file.fileno(), number)
        with (
            open(number, "w", encoding="utf-8", errors=errors, closefd=False, buffering=1) as stream,
            mock.patch.object(sys, name, stream),
        ):
            yield
    finally:
        os.dup2(before, number)
        os.close(before)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return cast("bytes", file.read()).decode()
