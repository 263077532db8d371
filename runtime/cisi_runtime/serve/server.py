"""`cisi-serve` as a process: the socket, the signals, the start and the end."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import logging
import secrets
import socket
from collections.abc import AsyncIterator
from importlib.metadata import version
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cisi_runtime.errors import CisiError, ServiceError
from cisi_runtime.pictures.pillow import lift_limit
from cisi_runtime.serve.app import make_app
from cisi_runtime.serve.guard import Access
from cisi_runtime.serve.handling import Handling
from cisi_runtime.serve.limits import Limits
from cisi_runtime.serve.monitoring import Metrics
from cisi_runtime.serve.network_info import NetworkOptions
from cisi_runtime.serve.outgoing import Outgoing
from cisi_runtime.serve.refusals import RefusalError
from cisi_runtime.serve.tracing import start_tracing
from cisi_runtime.serve.workforce import Workforce

_LOG = logging.getLogger("cisi.serve")
# A network hangs when a batch takes as long as this, and as so many deadlines.
_BATCH_S, _BATCH_DEADLINES = 60.0, 4.0
# How long a service that was told to end still takes work, so that who asks `/readyz` notices first.
_NOTICE_S = 1.0
_LOOK_S = 0.05
# For the answers of what was given up.
_ANSWER_S = 5.0
# How often kept photographs are looked at.
_FORGET_S = 10.0
# Files beside connections: pipes, and what libraries open.
_OWN_FILES = 256
_BACKLOG = 512


@dataclasses.dataclass(frozen=True)
class ServiceOptions:
    """What a service is started with.

    network: see `NetworkOptions`.
    host, port: to listen on; port 0 is any that is free.
    workers: processes that work on photographs.
    token: that requests must bear, None for none.
    """

    network: NetworkOptions
    host: str
    port: int
    workers: int
    token: str | None
    limits: Limits


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(options: ServiceOptions) -> None:
    """Run the service until a signal ends it.

    Raises ServiceError for an address that cannot be listened on, and what keeps the network from starting.
    """
    lift_limit()
    _raise_file_limit()
    listener = _listen(options.host, options.port)
    host, port = listener.getsockname()[:2]
    service = _Service(options)
    _LOG.info("listening", extra={"url": f"http://{f'[{host}]' if ':' in host else host}:{port}"})
    config = uvicorn.Config(
        service.app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=options.limits.connections,
        timeout_graceful_shutdown=1,
        backlog=_BACKLOG,
    )
    _Protocol.header_s, _Protocol.outgoing = options.limits.header_s, service.handling.outgoing
    server = _Server(config, service)
    service.server = server
    try:
        with listener:
            server.run(sockets=[listener])
    finally:
        service.workforce.remove_files()
    if service.error is not None:
        raise service.error


class _Service:
    """A service between its start and its end. error: what kept it from starting."""

    def __init__(self, options: ServiceOptions) -> None:
        self._options = options
        self.error: CisiError | None = None
        self.server: _Server | None = None
        ours = version("cisi-net")
        self._tracing = start_tracing(ours)
        # A batch that takes longer than a deadline costs its requests, and is no reason to end those of others.
        longest_batch_s = max(_BATCH_S, _BATCH_DEADLINES * options.limits.deadline_s)
        self.workforce = Workforce(options.network, options.workers, longest_batch_s)
        self.handling = Handling(self.workforce, options.workers, options.limits, Metrics())
        hosts = frozenset({"localhost", "127.0.0.1", "[::1]", options.host}) if is_loopback(options.host) else None
        access = Access(options.token, hosts)
        self.app = make_app(self.handling, access, version=ours, tracing=self._tracing, lifespan=self._live)

    async def drain(self) -> None:
        """End: tell it first, then take nothing new, finish what was accepted, within the grace, and stop."""
        assert self.server is not None
        handling, grace_s = self.handling, self._options.limits.grace_s
        clock = asyncio.get_running_loop().time
        end = clock() + grace_s
        _LOG.info("draining", extra={"requests": self.app.open_requests})
        handling.is_ending = True
        await asyncio.sleep(min(_NOTICE_S, grace_s))
        handling.is_draining = True
        while self.app.open_requests and clock() < end:
            await asyncio.sleep(_LOOK_S)
        if self.app.open_requests:
            _LOG.error("given up", extra={"requests": self.app.open_requests, "grace_s": grace_s})
            handling.given_up.set()
            answered = clock() + _ANSWER_S
            while self.app.open_requests and clock() < answered:
                await asyncio.sleep(_LOOK_S)
        # What has been answered is still on its way to slow clients.
        self.server.config.timeout_graceful_shutdown = max(1, round(end - clock()))
        self.server.should_exit = True

    async def _live(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._start()), asyncio.create_task(self._forget())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.workforce.close()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
            _LOG.info("ended")

    async def _forget(self) -> None:
        """Kept photographs, when their time has come."""
        while True:
            await asyncio.sleep(_FORGET_S)
            self.handling.sessions.forget_old()

    async def _start(self) -> None:
        assert self.server is not None
        try:
            info = await self.workforce.start()
        except CisiError as error:
            self.error = error
            self.server.should_exit = True
            return
        except Exception as error:
            self.error = ServiceError(f"the service cannot start: {type(error).__name__}: {error}")
            self.server.should_exit = True
            return
        for warning in info.warnings:
            _LOG.warning(warning)
        _LOG.info("ready", extra={"network": info.reason, "parity": info.parity, "workers": self._options.workers})


class _Server(uvicorn.Server):
    """The first SIGTERM or Ctrl-C drains, the second ends at once."""

    def __init__(self, config: uvicorn.Config, service: _Service) -> None:
        super().__init__(config)
        self._service = service
        self._is_ending = False
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by the signal."""
        if self._is_ending or not self.started:
            self.should_exit = self.force_exit = True
        else:
            self._is_ending = True
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._draining = asyncio.get_running_loop().create_task(self._service.drain())


class _Protocol(H11Protocol):
    """Closes a connection that does not send the head of a request in time, or a body that nobody reads.

    header_s: that time. outgoing: is told of connections.
    """

    header_s = 10.0
    outgoing: Outgoing | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        if self.outgoing is not None and self.client is not None:
            self.outgoing.opened(self.client, transport.abort)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """A piece of a request."""
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """The end of an answer."""
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection's end."""
        self._stop_watching()
        if self.outgoing is not None and self.client is not None:
            self.outgoing.closed(self.client)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets problem details, as every other error."""
        problem = RefusalError(400, "wrong-http", msg).response(secrets.token_hex(8))
        headers = [*problem.raw_headers, (b"connection", b"close")]
        events = h11.Response(status_code=400, headers=headers), h11.Data(data=bytes(problem.body)), h11.EndOfMessage()
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def _is_waiting(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self._is_waiting:
            self._stop_watching()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.header_s, self._close_if_waiting)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_if_waiting(self) -> None:
        if self._is_waiting:
            self.transport.close()


def _raise_file_limit() -> None:
    """Each connection is an open file, and many systems allow few unless they are asked. POSIX only."""
    try:
        import resource
    except ModuleNotFoundError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = Limits().connections + _OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            _LOG.warning("few open files are allowed", extra={"allowed": allowed, "wanted": wanted})


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ServiceError(f"--host {host}: {error.strerror or error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ServiceError(f"--port {port}: {host}: {error.strerror or error}") from error
    return listener
