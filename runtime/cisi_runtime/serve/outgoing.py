"""Answers on their way out: piece by piece, so that a client that does not take them is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Message, Send

_PIECE_BYTES = 128 << 10


class ClientTooSlowError(Exception):
    """A client does not take its answer."""


class Outgoing:
    """Sends answers. For one event loop.

    piece_s: longest time for a client to take a piece of an answer. whole_s: for all of it.
    bytes: of answers that have not been sent.
    """

    def __init__(self, piece_s: float, whole_s: float) -> None:
        self._piece_s, self._whole_s = piece_s, whole_s
        self.bytes = 0
        # How to break a connection, by the address of its client.
        self._breaks: dict[tuple[str, int], Callable[[], None]] = {}

    def opened(self, client: tuple[str, int], break_it: Callable[[], None]) -> None:
        """A connection that may have to be broken. What closes it would wait for its client to take what was sent."""
        self._breaks[client] = break_it

    def closed(self, client: tuple[str, int]) -> None:
        """The connection's end."""
        self._breaks.pop(client, None)

    async def send(self, message: Message, send: Send, client: tuple[str, int] | None) -> None:
        """Send a message of ASGI. Raises ClientTooSlowError, after breaking the connection."""
        body: bytes = message.get("body", b"")
        self.bytes += len(body)
        try:
            async with asyncio.timeout(self._whole_s):
                for start in range(0, max(1, len(body)), _PIECE_BYTES):
                    end = start + _PIECE_BYTES
                    more = end < len(body) or message.get("more_body", False)
                    piece = (
                        message
                        if len(body) <= _PIECE_BYTES
                        else {"type": "http.response.body", "body": body[start:end], "more_body": more}
                    )
                    async with asyncio.timeout(self._piece_s):
                        await send(piece)
        except TimeoutError as error:
            break_it = self._breaks.get(client) if client is not None else None
            if break_it is not None:
                break_it()
            raise ClientTooSlowError("the client does not take its answer") from error
        finally:
            self.bytes -= len(body)
