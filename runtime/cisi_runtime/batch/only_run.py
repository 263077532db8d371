"""One run at a time in an output folder.

Two runs at once would spoil no picture: a rename replaces a file as a whole, and equal options give equal bytes. But
the second would write its options over those of the first in the run record, so that results of two kinds pass for one,
and it would remove the first one's list of failures. So it is refused.

The lock is the kernel's and lies on the folder itself (flock(2)). It leaves no file, and is gone with its process,
whatever ends that: children let go of it at once. Stores and Windows have no such lock.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.console import tell
from cisi_runtime.errors import OutputError
from cisi_runtime.files import make_folder
from cisi_runtime.storage.addresses import Address

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
def only_run(output: Address) -> Iterator[None]:
    """Make an output folder and keep other runs out of it during the block. What is made here and is still empty when
    the block raises is removed.

    Enter it before the folder is listed: what another run adds afterwards would not be seen. Raises OutputError when
    another run is at work in it, or the folder cannot be made.
    """
    # A file is refused where what was expected instead is known.
    if not isinstance(output, Path) or (output.exists() and not output.is_dir()):
        yield
        return
    new = [folder for folder in (output, *output.parents) if not folder.exists()]
    make_folder(output)
    with _locked(output):
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # one that is not empty ends it
                for folder in new:
                    folder.rmdir()
            raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
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
