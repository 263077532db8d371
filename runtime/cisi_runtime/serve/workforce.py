"""The service's processes: one with the network, several that work on photographs. What ends is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from cisi_runtime.errors import CisiError, GraphError, ServiceError
from cisi_runtime.inpainting.model_copy import ModelCopy
from cisi_runtime.serve.network_info import NetworkInfo, NetworkOptions
from cisi_runtime.serve.network_process import run_network
from cisi_runtime.serve.photograph_process import (
    InpaintOutcome,
    InpaintTask,
    PreviewTask,
    run_photographs,
)
from cisi_runtime.serve.progress_board import Progress
from cisi_runtime.serve.remote_network import RemoteNetwork

T = TypeVar("T")
Task = InpaintTask | PreviewTask

_CONTEXT = multiprocessing.get_context("spawn")
_LOG = logging.getLogger("cisi.serve")
# How often the processes are looked at, and how long one that failed to start is waited for before the next try.
_LOOK_S, _NEXT_TRY_S = 0.2, 1.0
# How long a cancelled task may go on before its process is killed: detail of a large hole is not interrupted.
_PATIENCE_S = 5.0
# How long a killed process is waited for. One that waits for a device may not end before that answers.
_END_S = 2.0
# Longest path of a socket, in bytes: 104 on macOS, 108 on Linux, with the zero at its end.
_MAX_ADDRESS = 103
# Threads beyond one a worker, and threads for requests that ask the network itself.
_SPARE_THREADS, _ASKERS = 4, 8


class WorkerLostError(CisiError):
    """The process that worked on a request ended."""


class _Child:
    """A process and the pipe to it."""

    def __init__(self, name: str, main: Callable[..., None], *arguments: Any) -> None:
        self.connection, other = _CONTEXT.Pipe()
        self.process: BaseProcess = _CONTEXT.Process(target=main, args=(*arguments, other), name=name, daemon=True)
        self.process.start()
        other.close()

    def receive(self) -> Any:
        """The next message. Blocks. Raises WorkerLostError when the process has ended."""
        return _receive(self.connection)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join(_END_S)
        self.connection.close()


class PhotographWorker(_Child):
    """A process that works on one photograph at a time."""

    def __init__(self, address: str, key: bytes) -> None:
        # Memory of both processes. A message could meet another half way, or find the pipe full.
        self._cancelled: Any = _CONTEXT.RawValue("Q", 0)
        super().__init__("photographs", run_photographs, address, key, self._cancelled)
        self._number = 0

    def next_number(self) -> int:
        """A number for a task: for `call`, and for `cancel`."""
        self._number += 1
        return self._number

    def call(self, number: int, task: Task) -> Any:
        """The outcome of a task. Blocks. Raises the CisiError that ended it, or WorkerLostError."""
        try:
            self.connection.send((number, task))
        except OSError as error:
            raise WorkerLostError("the process that worked on this photograph ended") from error
        outcome = self.receive()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def cancel(self, number: int) -> None:
        """Let it stop working on a task, or not begin with it."""
        self._cancelled.value = number


class Workforce:
    """Starts the processes, gives them tasks, and replaces those that end. Its methods belong to one event loop.

    longest_batch_s: a network that runs one batch for longer hangs, and is replaced.

    progress: what the network has done.
    deaths: processes that ended and were replaced, by name.
    """

    def __init__(self, options: NetworkOptions, workers: int, longest_batch_s: float) -> None:
        self._options, self._count, self._longest_batch_s = options, workers, longest_batch_s
        self._folder = Path(tempfile.mkdtemp(prefix="cisi-serve-"))
        self._address, self._key = str(self._folder / "network"), secrets.token_bytes(32)
        if len(self._address.encode()) > _MAX_ADDRESS:
            self.remove_files()
            raise ServiceError(f"TMPDIR: {tempfile.gettempdir()}: is too long for a socket, expected a shorter one")
        self._network: _Child | None = None
        self._workers: set[PhotographWorker] = set()
        self._idle: asyncio.Queue[PhotographWorker] = asyncio.Queue()
        # A thread for each worker's call, and some for starting and looking. Those who ask the network itself have
        # their own, so that they cannot keep photographs from their workers.
        self._threads = ThreadPoolExecutor(workers + _SPARE_THREADS, thread_name_prefix="workforce")
        self._askers = ThreadPoolExecutor(_ASKERS, thread_name_prefix="network")
        self.progress = Progress()
        self._tasks: set[asyncio.Task[None]] = set()
        self.info: NetworkInfo | None = None
        # What a network process that replaces the first one opens: the file may be another one then.
        self._model: ModelCopy | None = None
        self._has_network = False
        self.deaths = {"network": 0, "photographs": 0}

    async def start(self) -> NetworkInfo:
        """Start every process. Raises the CisiError that keeps the network from starting."""
        model = self._options.model
        copy = None if model is None else await self._in_thread(lambda: ModelCopy.read(model))
        self.info = await self._start_network()
        self._model = copy
        await asyncio.gather(*(self._add_worker() for _ in range(self._count)))
        self._in_background(self._look_after())
        return self.info

    @property
    def is_ready(self) -> bool:
        """Whether there is a network, and a worker to use it."""
        return self._has_network and bool(self._workers)

    @property
    def workers(self) -> int:
        """Processes that work on photographs, those being started left out."""
        return len(self._workers)

    @property
    def processes(self) -> dict[str, list[int]]:
        """Process ids by name."""
        network = [] if self._network is None or self._network.process.pid is None else [self._network.process.pid]
        workers = [worker.process.pid for worker in self._workers if worker.process.pid is not None]
        return {"network": network, "photographs": workers}

    async def inpaint(self, task: InpaintTask, deadline: float) -> InpaintOutcome:
        """A photograph through the next worker that is free. deadline: by `time.monotonic`.

        Raises TimeoutError beyond it, the CisiError that ended the task, WorkerLostError. When the caller is
        cancelled, so is the task.
        """
        outcome = await self._call(task, deadline)
        assert isinstance(outcome, InpaintOutcome)
        return outcome

    async def preview(self, task: PreviewTask, deadline: float) -> bytes:
        """As `inpaint`: the bytes of a PNG file."""
        data = await self._call(task, deadline)
        assert isinstance(data, bytes)
        return data

    async def ask_network(self, ask: Callable[[RemoteNetwork], T]) -> T:
        """Call a function with a connection of its own to the network, in a thread. Raises NetworkLostError."""

        def connected() -> T:
            with RemoteNetwork(self._address, self._key) as network:
                return ask(network)

        return await asyncio.get_running_loop().run_in_executor(self._askers, connected)

    async def close(self) -> None:
        """End every process at once."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for child in [*self._workers, *([self._network] if self._network is not None else [])]:
            child.end()
        self._workers.clear()
        self._has_network = False
        for pool in (self._threads, self._askers):
            pool.shutdown(wait=False, cancel_futures=True)
        self.remove_files()

    def remove_files(self) -> None:
        """Remove the folder of the socket; also where there was no time to `close`."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _call(self, task: Task, deadline: float) -> Any:
        while True:
            async with asyncio.timeout(deadline - time.monotonic()):
                worker = await self._idle.get()
            if worker in self._workers and worker.process.is_alive():
                break
        number = worker.next_number()
        work = asyncio.ensure_future(self._in_thread(lambda: worker.call(number, task)))
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                outcome = await asyncio.shield(work)
        except (TimeoutError, asyncio.CancelledError):
            worker.cancel(number)
            self._in_background(self._take_back(worker, work))
            raise
        except WorkerLostError:
            raise
        except CisiError:
            self._idle.put_nowait(worker)
            raise
        except BaseException:
            # Not even its task can be known to have reached it. It is replaced.
            worker.process.kill()
            raise
        self._idle.put_nowait(worker)
        return outcome

    async def _take_back(self, worker: PhotographWorker, work: asyncio.Future[Any]) -> None:
        """Wait for a cancelled task to stop, or kill its process."""
        # This may itself be cancelled, at the end of the service; then nobody else looks at what became of the task.
        work.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([work], timeout=_PATIENCE_S)
        if not work.done():
            worker.process.kill()
            await asyncio.wait([work])
            await self._kill_network_unless_it_answers()
        error = work.exception()
        if error is None or (isinstance(error, CisiError) and not isinstance(error, WorkerLostError)):
            self._idle.put_nowait(worker)
        else:
            worker.process.kill()

    async def _kill_network_unless_it_answers(self) -> None:
        """Perhaps the worker hung because it waited for the network."""
        network = self._network
        asking = asyncio.ensure_future(self._in_thread(lambda: RemoteNetwork(self._address, self._key).close()))
        await asyncio.wait([asking], timeout=_PATIENCE_S)
        if not asking.done() and network is not None:
            _LOG.error("network does not answer")
            network.process.kill()  # the thread that asks ends with it
        with contextlib.suppress(CisiError):
            await asking

    async def _look_after(self) -> None:
        """Replace what ends."""
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                self._look()
            except Exception:  # it must go on looking
                _LOG.exception("looking after the processes failed")

    def _look(self) -> None:
        for worker in [worker for worker in self._workers if not worker.process.is_alive()]:
            self._workers.discard(worker)
            self._report_death("photographs", worker)
            self._in_background(self._replace_worker())
        if self._has_network and self._network is not None and self.progress.running_s > self._longest_batch_s:
            _LOG.error("network hangs", extra={"seconds": round(self.progress.running_s, 1)})
            self._network.process.kill()
        if self._has_network and self._network is not None and not self._network.process.is_alive():
            self._has_network = False
            self._report_death("network", self._network)
            self._in_background(self._replace_network())

    def _report_death(self, name: str, child: _Child) -> None:
        self.deaths[name] += 1
        _LOG.error("process ended", extra={"role": name, "exit_status": child.process.exitcode})
        child.end()

    async def _replace_worker(self) -> None:
        while True:
            try:
                return await self._add_worker()
            # The network is being replaced too, or the system has no more files or memory to give.
            except (CisiError, OSError) as error:
                _LOG.warning("process did not start", extra={"role": "photographs", "error": str(error)})
                await asyncio.sleep(_NEXT_TRY_S)

    async def _replace_network(self) -> None:
        while True:
            try:
                await self._start_network()
                return
            except (CisiError, OSError) as error:
                _LOG.error("process did not start", extra={"role": "network", "error": str(error)})
                await asyncio.sleep(_NEXT_TRY_S)

    async def _add_worker(self) -> None:
        worker = await self._in_thread(lambda: PhotographWorker(self._address, self._key))
        try:
            await self._in_thread(worker.receive)  # "ready"
        except WorkerLostError as error:
            worker.end()
            raise WorkerLostError("a process for photographs ended while it started") from error
        self._workers.add(worker)
        self._idle.put_nowait(worker)

    async def _start_network(self) -> NetworkInfo:
        Path(self._address).unlink(missing_ok=True)  # left by one that was killed
        self.progress.forget_batches()
        self._network = await self._in_thread(
            lambda: _Child("network", run_network, self._options, self._model, self._address, self._key, self.progress)
        )
        try:
            info = await self._in_thread(self._network.receive)
        except WorkerLostError as error:
            raise GraphError("the process that holds the network ended while it started") from error
        if isinstance(info, CisiError):
            raise info
        assert isinstance(info, NetworkInfo)
        self._has_network = True
        return info

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _in_background(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a task failed", exc_info=task.exception())


def _receive(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError) as error:
        raise WorkerLostError("the process that worked on this photograph ended") from error
