"""Bodies of requests, read within bounds of size and time."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from cisi_runtime.batch.photograph import EncodedPicture
from cisi_runtime.serve.admission import ByteBudget
from cisi_runtime.serve.limits import Limits
from cisi_runtime.serve.refusals import NO_ANSWER, RefusalError

_MAX_FILES, _MAX_FIELDS, _MAX_FIELD_BYTES = 4, 16, 4096
_MAX_NAME = 100


@dataclasses.dataclass(frozen=True)
class Form:
    """A form as it was sent: files and texts by the names of their fields."""

    files: dict[str, EncodedPicture]
    texts: dict[str, str]


class BodyReader:
    """Reads bodies within `limits`, from memory that they all share."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._budget = ByteBudget(limits.held_bytes)

    @asynccontextmanager
    async def form(self, request: Request) -> AsyncIterator[Form]:
        """A multipart form. Its bytes count as held until the block ends. Raises RefusalError."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            raise RefusalError(415, "wrong-form", f"Content-Type: got {kind or 'none'}, expected multipart/form-data")
        held = _Held(self._budget)
        try:
            yield await self._parse(request, held)
        finally:
            held.give_back()

    @asynccontextmanager
    async def body(self, request: Request, max_bytes: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a body, as `form` counts them. max_bytes: fewer than `Limits` allow. Raises RefusalError."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RefusalError(415, "wrong-form", "Content-Encoding: expected none: compressed bodies are not taken")
        held = _Held(self._budget)
        try:
            data = bytearray()
            async for chunk in self._chunks(request, held, max_bytes):
                data += chunk
            body = bytes(data)
            data.clear()
            yield body
        finally:
            held.give_back()

    async def _parse(self, request: Request, held: _Held) -> Form:
        parser = MultiPartParser(
            request.headers,
            self._chunks(request, held),
            max_files=_MAX_FILES,
            max_fields=_MAX_FIELDS,
            max_part_size=_MAX_FIELD_BYTES,
        )
        parser.spool_max_size = self._limits.max_bytes + 1  # in memory: its size is bounded here
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RefusalError(400, "wrong-form", f"the form cannot be read: {error.message}") from error
        files: dict[str, EncodedPicture] = {}
        texts: dict[str, str] = {}
        for name, value in form.multi_items():
            if name in files or name in texts:
                raise RefusalError(422, "wrong-field", f"{_printable(name)}: is there twice, expected once")
            if isinstance(value, UploadFile):
                files[name] = EncodedPicture(await value.read(), _printable(value.filename or name))
                await value.close()
            else:
                texts[name] = value
        return Form(files, texts)

    async def _chunks(self, request: Request, held: _Held, max_bytes: int | None = None) -> AsyncGenerator[bytes, None]:
        limits, received = self._limits, 0
        most = limits.max_bytes if max_bytes is None else min(max_bytes, limits.max_bytes)
        too_large = RefusalError(
            413, "too-many-bytes", f"the request has more than {most} bytes, which is all that is taken"
        )
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise too_large
        end = time.monotonic() + limits.body_s
        stream = request.stream()
        while True:
            try:
                async with asyncio.timeout(min(limits.chunk_s, end - time.monotonic())):
                    chunk = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise RefusalError(
                    408,
                    "too-slow",
                    f"expected the next piece of the body within {limits.chunk_s:g} s, and all of it within "
                    f"{limits.body_s:g} s",
                ) from error
            except ClientDisconnect as error:
                raise RefusalError(NO_ANSWER, "client-gone", "the client went away before its body ended") from error
            received += len(chunk)
            if received > most:
                raise too_large
            held.take(len(chunk))
            yield chunk


class _Held:
    """What one request has taken of the budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget, self._count = budget, 0

    def take(self, count: int) -> None:
        self._budget.take(count)
        self._count += count

    def give_back(self) -> None:
        self._budget.give_back(self._count)
        self._count = 0


def _printable(name: str) -> str:
    """A client's name for something, fit for one line of a message."""
    return "".join(character if character.isprintable() else "?" for character in name[:_MAX_NAME])
