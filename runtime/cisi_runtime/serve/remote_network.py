"""The network of another process, as a backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from multiprocessing.connection import Client, Connection
from typing import Any

import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.errors import CisiError
from cisi_runtime.serve.network_info import NetworkInfo

_CONNECTION_ERRORS = (EOFError, OSError)


class NetworkLostError(CisiError):
    """The process that holds the network ended, or has not begun."""


class RemoteNetwork(Backend):
    """A connection to the network's process. For one thread. It connects again when the network has been replaced.

    before_run: called before each run; what it raises ends the run.

    Raises NetworkLostError where there is no network, and what the network raised.
    """

    def __init__(self, address: str, key: bytes, before_run: Callable[[], None] | None = None) -> None:
        self._address, self._key, self._before_run = address, key, before_run
        self._connection: Connection | None = None
        info = self._connect()
        super().__init__(info.name, info.contract, info.fixed, info.precision)

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if self._before_run is not None:
            self._before_run()
        completed: npt.NDArray[Any] = self._ask((image, hole_mask))
        return completed

    def _close(self) -> None:
        self._disconnect()

    def _ask(self, message: object) -> Any:
        if self._connection is not None and self._connection.poll():
            self._disconnect()  # nothing was asked, so that is its end: the network has been replaced
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        try:
            self._connection.send(message)
            answer = self._connection.recv()
        except _CONNECTION_ERRORS as error:
            self._disconnect()
            raise NetworkLostError("the network ended while it worked on this request") from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _connect(self) -> NetworkInfo:
        try:
            connection = Client(self._address, authkey=self._key)
            info: NetworkInfo = connection.recv()
        except _CONNECTION_ERRORS as error:
            raise NetworkLostError("the network is being replaced") from error
        self._connection = connection
        return info

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None
