"""A folder that one process at a time writes to.

The lock is the kernel's and lies on the folder itself (flock(2)). It leaves no file, and is gone with its process,
whatever ends that: children let go of it at once. Windows has no such lock.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.console import tell
from cisi_runtime.errors import OutputError

# Descriptors of folders that are locked. A child that is forked, as PyTorch's readers of data are, has copies of them,
# and would hold the lock beyond the end of its parent.
_HELD: set[int] = set()


def _let_go() -> None:
    for descriptor in _HELD:
        os.close(descriptor)
    _HELD.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keep others who ask for the lock out of a folder during the block.

    Raises OutputError when another process has it, or the folder cannot be read.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be read: {error.strerror}") from error
    _HELD.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{folder}: another run is at work here, expected another folder, or its end") from error
        except OSError as error:  # some network drives
            tell(f"{folder}: cannot be locked ({error.strerror}): start no other run into it before this one ends")
        yield
    finally:
        _HELD.discard(descriptor)
        os.close(descriptor)
