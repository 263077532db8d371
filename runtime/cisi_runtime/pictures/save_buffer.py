"""The buffer that Pillow saves through.

Its size is a global of Pillow's, `ImageFile.MAXBLOCK`, and the chunks of a PNG file follow it. So one file that needs a
larger buffer must not change it for another: the same picture would have other bytes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from PIL import ImageFile

_OWN_SIZE = ImageFile.MAXBLOCK
_changed = threading.Condition()
# Files that are being saved with Pillow's own size, and whether one is that needs a larger one, or waits to begin.
_saving = 0
_is_larger = False


@contextlib.contextmanager
def save_buffer(size: int = 0) -> Iterator[None]:
    """Around `Image.save`. size: bytes that the buffer must have, if Pillow's own size does not suffice.

    Files that need no more are saved side by side. One that does is saved alone.
    """
    with _own_size() if size <= _OWN_SIZE else _larger(size):
        yield


@contextlib.contextmanager
def _own_size() -> Iterator[None]:
    global _saving
    with _changed:
        _changed.wait_for(lambda: not _is_larger)
        _saving += 1
    try:
        yield
    finally:
        with _changed:
            _saving -= 1
            _changed.notify_all()


@contextlib.contextmanager
def _larger(size: int) -> Iterator[None]:
    global _is_larger
    with _changed:
        _changed.wait_for(lambda: not _is_larger)
        _is_larger = True
        _changed.wait_for(lambda: _saving == 0)
        ImageFile.MAXBLOCK = size
    try:
        yield
    finally:
        with _changed:
            ImageFile.MAXBLOCK = _OWN_SIZE
            _is_larger = False
            _changed.notify_all()
