"""`cisi-serve` as a process: the socket, the signals, the start and the end."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator
from importlib.metadata import version
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from cisi_runtime.errors import CisiError, ServiceError
from cisi_runtime.pictures.pillow import prepare_for_photographs
from cisi_runtime.serve.app import make_app
from cisi_runtime.serve.guard import Access
from cisi_runtime.serve.handling import Handling
from cisi_runtime.serve.limits import Limits
from cisi_runtime.serve.monitoring import Metrics
from cisi_runtime.serve.network_info import NetworkOptions
from cisi_runtime.serve.tracing import start_tracing
from cisi_runtime.serve.workforce import Workforce

_LOG = logging.getLogger("cisi.serve")
# How long a service that was told to end still takes work, so that who asks `/readyz` notices first.
_NOTICE_S = 1.0
_LOOK_S = 0.05
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
    prepare_for_photographs()
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
    _Protocol.header_s = options.limits.header_s
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
        self.workforce = Workforce(options.network, options.workers, options.limits.deadline_s)
        self.handling = Handling(self.workforce, options.workers, options.limits, Metrics())
        hosts = frozenset({"localhost", "127.0.0.1", "[::1]", options.host}) if is_loopback(options.host) else None
        access = Access(options.token, hosts)
        ours = version("cisi-net")
        self._tracing = start_tracing(ours)
        self.app = make_app(self.handling, access, version=ours, tracing=self._tracing, lifespan=self._live)

    async def drain(self) -> None:
        """End: tell it first, then take nothing new, finish what was accepted, within the grace, and stop."""
        assert self.server is not None
        handling, grace_s = self.handling, self._options.limits.grace_s
        clock = asyncio.get_running_loop().time
        end = clock() + grace_s
        _LOG.info("draining", extra={"requests": handling.admission.requests})
        handling.is_ending = True
        await asyncio.sleep(min(_NOTICE_S, grace_s))
        handling.is_draining = True
        while handling.admission.requests and clock() < end:
            await asyncio.sleep(_LOOK_S)
        if handling.admission.requests:
            _LOG.error("given up", extra={"requests": handling.admission.requests, "grace_s": grace_s})
        self.server.should_exit = True

    async def _live(self) -> AsyncIterator[None]:
        starting = asyncio.create_task(self._start())
        try:
            yield
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await self.workforce.close()
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)
            _LOG.info("ended")

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
    """Closes a connection that does not send the head of its first request in time. header_s: that time."""

    header_s = 10.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A new connection."""
        super().connection_made(transport)
        self._first_head = self.loop.call_later(self.header_s, self._close_unless_begun)

    def connection_lost(self, exc: Exception | None) -> None:
        """A connection's end."""
        self._first_head.cancel()
        super().connection_lost(exc)

    def _close_unless_begun(self) -> None:
        if self.cycle is None:
            self.transport.close()


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
