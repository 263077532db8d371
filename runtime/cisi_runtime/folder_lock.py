"""A folder that one process at a time writes to.

The lock is the kernel's and lies on the folder itself (flock(2)). It leaves no file, and is gone with its process,
whatever ends that. Windows has no such lock.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.console import tell
from cisi_runtime.errors import OutputError


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
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{folder}: another run is at work here, expected another folder, or its end") from error
        except OSError as error:  # some network drives
            tell(f"{folder}: cannot be locked ({error.strerror}): start no other run into it before this one ends")
        yield
    finally:
        os.close(descriptor)
