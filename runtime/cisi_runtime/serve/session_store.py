"""Photographs that clients uploaded once, to send masks for."""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections import OrderedDict

from cisi_runtime.batch.photograph import EncodedPicture
from cisi_runtime.pictures.reading import PictureHead
from cisi_runtime.serve.refusals import RefusalError


@dataclasses.dataclass(frozen=True)
class StoredPhotograph:
    """A photograph. used: when, by `time.monotonic`."""

    image: EncodedPicture
    head: PictureHead
    used: float


class SessionStore:
    """Keeps photographs under names that cannot be guessed, in bounded memory. For one thread.

    The one that was not used for longest goes first, and each after `seconds` without use.
    """

    def __init__(self, max_bytes: int, seconds: float) -> None:
        self._max_bytes, self.seconds = max_bytes, seconds
        self._photographs: OrderedDict[str, StoredPhotograph] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._photographs)

    @property
    def bytes(self) -> int:
        """Of all photographs."""
        return self._bytes

    def add(self, image: EncodedPicture, head: PictureHead) -> str:
        """Keep a photograph; returns its name. Raises RefusalError (413) for one that would take all the memory."""
        if len(image.data) > self._max_bytes:
            raise RefusalError(
                413, "too-many-bytes", f"image: {len(image.data)} bytes, expected at most {self._max_bytes}"
            )
        self.forget_old()
        name = secrets.token_urlsafe(16)
        self._photographs[name] = StoredPhotograph(image, head, time.monotonic())
        self._bytes += len(image.data)
        while self._bytes > self._max_bytes:
            self.remove(next(iter(self._photographs)))
        return name

    def get(self, name: str) -> StoredPhotograph:
        """A photograph, which counts as used now. Raises RefusalError (404)."""
        self.forget_old()
        stored = self._photographs.get(name)
        if stored is None:
            raise RefusalError(
                404, "unknown-photograph", "there is no photograph of this name any more: upload it again"
            )
        self._photographs[name] = stored = dataclasses.replace(stored, used=time.monotonic())
        self._photographs.move_to_end(name)
        return stored

    def remove(self, name: str) -> None:
        """Forget a photograph. One that is not there is no error."""
        stored = self._photographs.pop(name, None)
        if stored is not None:
            self._bytes -= len(stored.image.data)

    def forget_old(self) -> None:
        """Those that were not used for too long."""
        oldest = time.monotonic() - self.seconds
        while self._photographs and next(iter(self._photographs.values())).used < oldest:
            self.remove(next(iter(self._photographs)))
