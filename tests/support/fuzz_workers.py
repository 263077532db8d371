"""Readers of files run in processes of their own, with a limit of time and memory, and what becomes of each input."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Self

from cisi_runtime.errors import CisiError
from tests.support.fuzz_readers import RARE, Reader
from tests.support.mutations import mutate
from tests.support.networks import ROOT

LIMIT_S = 10.0
# Above what the process has used for undamaged files. Address space is limited to four times as much, so that the
# machine stays usable; what an allocation beyond it becomes is counted as well.
LIMIT_BYTES = 1 << 30
_START_S = 300.0
# Results are synced. On a disk that would take most of the time.
_SHARED_MEMORY = "/dev/shm"
OUTCOMES = ("done", "refused", "crashed", "hung", "memory")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """kind: one of `OUTCOMES`. signature: the same for the same fault. text: for people."""

    kind: str
    signature: str = ""
    text: str = ""

    @property
    def is_finding(self) -> bool:
        return self.kind not in ("done", "refused")


def make_input(seeds: dict[str, bytes], reader: Reader, seed: int, number: int) -> tuple[str, bytes]:
    """Name and bytes of an input: the same for the same arguments."""
    rng = random.Random(f"{seed} {reader.name} {number}")
    if reader.large and rng.randrange(RARE) == 0:
        path = rng.choice(reader.large)
        return path.name, mutate(path.read_bytes(), [path.read_bytes()], rng)
    name = rng.choice(sorted(seeds))
    return name, mutate(seeds[name], list(seeds.values()), rng)


class Worker:
    """A process that reads inputs one by one. It is started anew after a death, and killed after too long a time."""

    def __init__(self, reader: Reader, seeds: dict[str, bytes], log: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self._arguments = (reader, seeds, log, limit_bytes)
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def read(self, item: tuple[int, int] | tuple[str, bytes]) -> Outcome:
        """item: seed and number of an input, or its name and bytes."""
        if self._connection is None:
            self._start()
        assert self._connection is not None
        assert self._process is not None
        try:
            self._connection.send(item)
            if self._connection.poll(LIMIT_S):
                outcome: Outcome = self._connection.recv()
                return outcome
        except (EOFError, OSError):
            self._process.join(LIMIT_S)
            status = self._process.exitcode
            self._stop()
            return Outcome("crashed", f"process died, status {status}", f"the process died, status {status}")
        self._stop()
        return Outcome("hung", "hung", f"no answer in {LIMIT_S:g} s")

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(_START_S):
            raise RuntimeError(f"the worker for {self._arguments[0].name} does not start, see {self._arguments[2]}")
        faults = self._connection.recv()
        if faults:
            raise RuntimeError(f"{self._arguments[0].name}: undamaged files are not read: {faults}")

    def _stop(self) -> None:
        if self._process is not None and self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
        self._process = self._connection = None


def _serve(connection: Connection, reader: Reader, seeds: dict[str, bytes], log: Path, limit_bytes: int) -> None:
    """The loop of a worker: undamaged files first, then whatever is asked for."""
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    warnings.simplefilter("ignore")
    originals = list(seeds.items()) + [(path.name, path.read_bytes()) for path in reader.large]
    undamaged = [(name, attempt(reader, name, data)) for name, data in originals]
    connection.send([(name, outcome.text) for name, outcome in undamaged if outcome.kind != "done"])
    baseline = _status_bytes("VmRSS")
    space = _status_bytes("VmSize") + 4 * limit_bytes
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    while True:
        try:
            first, second = connection.recv()
        except EOFError:
            return
        name, data = (first, second) if isinstance(first, str) else make_input(seeds, reader, first, second)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        outcome = attempt(reader, name, data)
        peak = _status_bytes("VmHWM") - baseline
        if peak > limit_bytes:
            outcome = Outcome("memory", f"memory, then {outcome.signature}", f"{peak >> 20} MiB more; {outcome.text}")
        connection.send(outcome)


def attempt(reader: Reader, name: str, data: bytes) -> Outcome:
    """What becomes of one input, in this process and without limits."""
    folder = Path(tempfile.mkdtemp(prefix="cisi-fuzz-", dir=_SHARED_MEMORY))
    try:
        path = folder / name
        path.write_bytes(data)
        (folder / "results").mkdir()
        reader.read(path, folder / "results")
    except CisiError as error:
        text = str(error)
        if text.isprintable() and len(text) < 10_000:
            return Outcome("refused", type(error).__name__, text)
        return Outcome("crashed", f"message of {type(error).__name__} at {_place(error)}", repr(text)[:1000])
    except MemoryError as error:
        return Outcome("memory", f"MemoryError at {_place(error)}", "MemoryError")
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        return Outcome("crashed", f"{type(error).__name__} at {_place(error)}", text[-3000:])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome("done")


def _place(error: BaseException) -> str:
    """The last line of this project that the error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(str(ROOT)) and "/tests/" not in frame.filename]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise RuntimeError(f"/proc/self/status has no {field}; this runs on Linux alone")


def minimise(data: bytes, is_same: Callable[[bytes], bool], seconds: float) -> bytes:
    """The smallest input found that still has the fault: pieces are left out, of half the size at each round."""
    end = time.monotonic() + seconds
    size = len(data) // 2
    while size >= 1:
        at = 0
        while at < len(data):
            if time.monotonic() > end:
                return data
            shorter = data[:at] + data[at + size :]
            if is_same(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data
