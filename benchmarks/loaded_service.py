"""`cisi-serve` as a process, and clients that ask it over connections of their own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

BOUNDARY = "cisi-load"


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answered request. status 0: the connection was closed. seconds: until its last byte."""

    status: int
    seconds: float
    body: bytes


class Service:
    """`cisi-serve` as a process. arguments: of its command line."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-c", "import cisi_runtime.cli.serve as m; m.main()", "--port", "0", "--log", "json"]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
        self.process = subprocess.Popen([*command, *arguments], stderr=self._log)
        self.port = 0
        while not any(line["message"] == "ready" for line in self.log()):
            assert self.process.poll() is None, self.log()
            time.sleep(0.1)
        self.port = int(str(self.log()[0]["url"]).rpartition(":")[2])

    def log(self) -> list[dict[str, object]]:
        """The lines of its log so far."""
        self._log.seek(0)
        return [json.loads(line) for line in self._log.read().splitlines() if line.endswith("}")]

    def metrics(self) -> dict[str, float]:
        """Each metric, with its labels, and its value."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    def memory_mb(self) -> float:
        """Resident memory of all its processes."""
        return sum(value for name, value in self.metrics().items() if name.startswith("cisi_memory_bytes")) / 1e6

    def total(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(value for key, value in self.metrics().items() if key.partition("{")[0] == name)

    def workers(self) -> list[int]:
        """Process ids of the photograph workers: its children but the network, which began first."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        children = [child for path in tasks.glob("*/children") for child in path.read_text().split()]
        spawned = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        began = {
            child: int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[19]) for child in spawned
        }
        return sorted(spawned, key=lambda child: began[child])[1:]

    def close(self) -> None:
        """SIGTERM, and wait."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self._log.close()


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[Service]:
    """A service, ready."""
    service = Service(*arguments)
    try:
        yield service
    finally:
        service.close()


def request_of(image: Path, mask: Path) -> bytes:
    """The bytes of a request for a photograph."""
    parts = []
    for name, path in (("image", image), ("mask", mask)):
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n\r\n'
        parts += [head.encode(), path.read_bytes(), b"\r\n"]
    body = b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])
    head = (
        "POST /inpaint HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(port: int, request: bytes, *, half_close: bool = False) -> Answer:
    """Send a request over a connection of its own and read the answer. half_close: nothing more will be sent."""
    start = time.perf_counter()
    data = b""
    # A connection that is refused or cut off: status 0.
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            if half_close:
                writer.write_eof()
            data = await reader.read(-1)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    head, _, body = data.partition(b"\r\n\r\n")
    status = head[9:12]
    return Answer(int(status) if status.isdigit() else 0, time.perf_counter() - start, body)


async def closed_loop(port: int, request: bytes, clients: int, count: int) -> list[Answer]:
    """`count` requests by clients that each wait for their answer."""
    left = iter(range(count))

    async def client() -> list[Answer]:
        return [await ask(port, request) for _ in left]

    return [answer for answers in await asyncio.gather(*(client() for _ in range(clients))) for answer in answers]


async def open_load(port: int, request: bytes, rate: float, seconds: float) -> list[Answer]:
    """Requests at a fixed rate for a while; returns when all are answered."""
    clock, tasks = asyncio.get_running_loop().time, []
    start = clock()
    for number in range(round(rate * seconds)):
        await asyncio.sleep(max(0.0, start + number / rate - clock()))
        tasks.append(asyncio.create_task(ask(port, request)))
    return list(await asyncio.gather(*tasks))
