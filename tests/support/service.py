"""`cisi-serve` in a process of its own, with limits that tests can reach."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.networks import ROOT
from tests.support.shared import TIMEOUT_S


class Service:
    """A running service. url: where. log: its lines so far, parsed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = str(self.logged("listening")["url"])
        self.client = httpx.Client(base_url=self.url, timeout=TIMEOUT_S)

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def logged(self, message: str) -> dict[str, Any]:
        """The first line of the log with a message; waits for it."""
        wait_until(lambda: any(line["message"] == message for line in self.log) or self.process.poll() is not None)
        self.process.poll()
        found = [line for line in self.log if line["message"] == message]
        assert found, f"the service ended: {self.log}"
        return found[0]

    def said(self, name: str, value: object, count: int = 1) -> list[dict[str, Any]]:
        """Lines of the log in which a field has a value; waits until there are so many. A request's line comes after
        its answer."""

        def found() -> list[dict[str, Any]]:
            return [line for line in list(self.log) if line.get(name) == value]

        wait_until(lambda: len(found()) >= count)
        return found()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].split(" ")[0] == name)

    def children(self, name: str) -> list[int]:
        """Process ids of the photograph workers, or of the network, oldest first."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                started = float((path / "stat").read_text().rpartition(")")[2].split()[19])
                if parent == self.process.pid and "spawn_main" in (path / "cmdline").read_text():
                    opened = (path / "maps").read_text()
                    kind = "network" if "onnxruntime" in opened else "photographs"
                    found.append((started, int(path.name), kind))
        return [number for _, number, kind in sorted(found) if kind == name]

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.client.close()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        return status

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with contextlib.suppress(ValueError):
                self.log.append(json.loads(line))
                continue
            self.log.append({"message": line.rstrip(), "level": "not JSON"})


@contextlib.contextmanager
def running(*arguments: object, limits: dict[str, float] | None = None, ready: bool = True) -> Iterator[Service]:
    """limits: fields of `Limits` that are no options. ready: wait until it takes work."""
    command = [sys.executable, "-m", "tests.support.service", json.dumps(limits or {}), "--port", "0", "--log", "json"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        service = Service(process)
        if ready:
            service.logged("ready")
        yield service
    finally:
        for pid in _stopped_children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        process.kill()
        process.wait(TIMEOUT_S)


def _stopped_children(parent: int) -> list[int]:
    """Children that a test left stopped: they could not notice their parent's end."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[1]) == parent and fields[0] == "T":
                found.append(int(path.name))
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait, as long as any process may take."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Processes held still."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def main() -> None:
    """`cisi-serve` with the limits of the first argument."""
    from cisi_runtime.cli import serve as command

    changes = json.loads(sys.argv.pop(1))
    plain = command.ServeOptions.limits
    command.ServeOptions.limits = lambda options: dataclasses.replace(plain(options), **changes)  # type: ignore
    command.main()


if __name__ == "__main__":
    main()
