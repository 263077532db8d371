"""What the handlers of all interfaces share: one photograph through the queue and a worker, for a client that waits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar
from urllib.parse import quote

from starlette.requests import Request

from cisi_runtime.batch.photograph import EncodedPicture
from cisi_runtime.errors import CisiError, error_prefix
from cisi_runtime.pictures.reading import PictureHead, check_mask_size, read_head
from cisi_runtime.serve.admission import Admission
from cisi_runtime.serve.limits import Limits
from cisi_runtime.serve.monitoring import Metrics
from cisi_runtime.serve.outgoing import Outgoing
from cisi_runtime.serve.photograph_process import InpaintOutcome, InpaintTask, PreviewTask
from cisi_runtime.serve.refusals import NO_ANSWER, RefusalError, refusal_of
from cisi_runtime.serve.remote_network import NetworkLostError, RemoteNetwork
from cisi_runtime.serve.session_store import SessionStore
from cisi_runtime.serve.uploads import BodyReader
from cisi_runtime.serve.workforce import WorkerLostError, Workforce

T = TypeVar("T")

# Heads of files that are looked at together.
_HEADS = 4


class Handling:
    """The parts of a running service. is_ending: it was told to end, and says so to who asks whether it is ready.
    is_draining: it takes nothing new and ends what it has."""

    def __init__(self, workforce: Workforce, workers: int, limits: Limits, metrics: Metrics) -> None:
        self.workforce, self.limits, self.metrics = workforce, limits, metrics
        self.bodies = BodyReader(limits)
        self.sessions = SessionStore(limits.session_bytes, limits.session_s)
        self.admission = Admission(limits.queue_megapixels, workers, limits.deadline_s)
        self.outgoing = Outgoing(limits.send_s, limits.body_s)
        self.is_ending = self.is_draining = False
        self.given_up = asyncio.Event()
        # One that consists of small parts takes 0.3 s for each MB.
        self._looking = asyncio.Semaphore(_HEADS)
        metrics.gauge("cisi_queue_requests", "Requests that were let in.", lambda: self.admission.requests)
        metrics.gauge("cisi_queue_megapixels", "Their megapixels.", lambda: self.admission.megapixels)
        metrics.gauge("cisi_session_photographs", "Photographs kept for further masks.", lambda: len(self.sessions))
        metrics.gauge("cisi_session_bytes", "Their bytes.", lambda: self.sessions.bytes)
        metrics.gauge("cisi_outgoing_bytes", "Answers that have not been sent.", lambda: self.outgoing.bytes)
        metrics.gauge("cisi_ready", "Whether work is taken.", lambda: float(self.is_ready))
        metrics.gauge("cisi_workers", "Processes that work on photographs.", lambda: workforce.workers)
        metrics.memory(lambda: workforce.processes)
        metrics.deaths(lambda: workforce.deaths)

    @property
    def is_ready(self) -> bool:
        """Whether more work is wanted."""
        return self.workforce.is_ready and not self.is_ending

    async def head_of(self, image: EncodedPicture) -> PictureHead:
        """Size and format of a photograph. Raises RefusalError for one that will not be taken."""
        return await self._head_of(image, "image")

    async def check_mask(self, mask: EncodedPicture | None, head: PictureHead) -> None:
        """Look at a mask before it is let in. Raises RefusalError unless it has its photograph's size."""
        if mask is not None:
            found = await self._head_of(mask, "mask")
            with _refusing("mask"):
                check_mask_size((found.height, found.width), mask.name, (head.height, head.width))

    async def _head_of(self, picture: EncodedPicture, field: str) -> PictureHead:
        with _refusing(field):
            async with self._looking:
                return await asyncio.to_thread(read_head, picture.data, picture.name, self.limits.max_pixels)

    async def inpaint(self, request: Request, task: InpaintTask, head: PictureHead) -> InpaintOutcome:
        """Raises RefusalError."""
        await self.check_mask(task.mask, head)
        megapixels = _megapixels(head)
        said = request.state.said
        said["megapixels"] = round(megapixels, 3)
        with self._admitted(megapixels):
            start = time.monotonic()
            outcome = await self._while_connected(request, self.workforce.inpaint(task, start + self.limits.deadline_s))
            worked_s = sum(outcome.milliseconds.values()) / 1000.0
            self.admission.took(megapixels, worked_s)
            outcome.milliseconds["queue"] = max(0.0, 1000.0 * (time.monotonic() - start - worked_s))
        for stage, milliseconds in outcome.milliseconds.items():
            self.metrics.stages.labels(stage).observe(milliseconds / 1000.0)
        said["hole"] = round(outcome.hole, 5)
        return outcome

    async def preview(self, request: Request, image: EncodedPicture, head: PictureHead) -> bytes:
        """The upright pixels as PNG. Raises RefusalError."""
        with self._admitted(_megapixels(head)):
            task = PreviewTask(image, self.limits.max_pixels)
            deadline = time.monotonic() + self.limits.deadline_s
            return await self._while_connected(request, self.workforce.preview(task, deadline))

    async def ask_network(self, request: Request, megapixels: float, ask: Callable[[RemoteNetwork], T]) -> T:
        """A function of the network, in a thread. Raises RefusalError, and what the function raises."""

        async def asking() -> T:
            async with asyncio.timeout(self.limits.deadline_s):
                return await self.workforce.ask_network(ask)

        with self._admitted(megapixels):
            return await self._while_connected(request, asking())

    def _admitted(self, megapixels: float) -> contextlib.AbstractContextManager[None]:
        self.check_open()
        if not self.workforce.is_ready:
            raise RefusalError(503, "not-ready", "the network is being started", retry_after_s=2.0)
        if self.outgoing.bytes > self.limits.held_bytes:
            raise RefusalError(
                429, "queue-full", "answers that their clients do not take fill the memory", retry_after_s=5.0
            )
        return self.admission.admit(megapixels)

    def check_open(self) -> None:
        """Raises RefusalError when nothing new is taken."""
        if self.is_draining:
            raise RefusalError(503, "draining", "the service is ending: ask another one", retry_after_s=1.0)

    async def _while_connected(self, request: Request, work: Awaitable[T]) -> T:
        """The result, or a refusal in place of what went wrong. The work is dropped when the client goes away, and when
        the service ends without it."""
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_until_gone(request))
        given_up = asyncio.ensure_future(self.given_up.wait())
        try:
            await asyncio.wait({working, gone, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            if gone.done():
                raise RefusalError(NO_ANSWER, "client-gone", "the client went away")
            raise RefusalError(503, "draining", "the service ended before it was done", retry_after_s=1.0)
        except TimeoutError as error:
            raise RefusalError(
                504, "deadline", f"not done within {self.limits.deadline_s:g} s", retry_after_s=self.limits.deadline_s
            ) from error
        except (WorkerLostError, NetworkLostError) as error:
            raise RefusalError(502, "worker-died", f"{error}; perhaps for want of memory") from error
        except CisiError as error:
            raise refusal_of(error) from error
        finally:
            for task in (working, gone, given_up):
                task.cancel()
            await asyncio.gather(working, gone, given_up, return_exceptions=True)


@contextlib.contextmanager
def _refusing(field: str) -> Iterator[None]:
    """A refusal in place of an error of ours that the block raises, with the field's name in front."""
    try:
        with error_prefix(field):
            yield
    except CisiError as error:
        raise refusal_of(error) from error


def _megapixels(head: PictureHead) -> float:
    return head.width * head.height / 1e6


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def header_text(text: str) -> str:
    """Text for a header: what is not printable ASCII is percent-encoded."""
    return quote(text, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~")
