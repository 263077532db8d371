"""Files that are whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.errors import OutputError

# Temporary files are called after the process that writes them, so that those of a killed one can be told.
_TEMPORARY = ".cisi-"


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


# It can only be read by setting it, which several threads must not do at a time.
_UMASK = _read_umask()


def check_writable(path: Path) -> None:
    """Raise OutputError when `path` can be seen beforehand not to be writable; nothing is created."""
    folder = path.parent
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, expected a file name")
        if not folder.is_dir():
            raise OutputError(f"{path}: folder {folder} does not exist")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"{path}: folder {folder} cannot be written to")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` (same suffix); rename it to `path` when the block ends without an error.

    On an error the temporary file is removed and an existing `path` is left as it was. Raises OutputError.
    """
    check_writable(path)
    temporary: Path | None = None
    try:
        prefix = f"{_TEMPORARY}{os.getpid()}-"
        handle, name = tempfile.mkstemp(prefix=prefix, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        # mkstemp makes files that only their owner can read; a result gets the permissions of any new file.
        temporary.chmod(0o666 & ~_UMASK)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_left_over(folder: Path) -> None:
    """Remove temporary files, below a folder, of processes that were killed while they wrote. On POSIX alone:
    elsewhere there is no harmless way to ask whether a process runs."""
    if os.name != "posix":
        return
    for path in folder.rglob(f"{_TEMPORARY}*"):
        number = path.name.removeprefix(_TEMPORARY).partition("-")[0]
        if number.isdecimal() and (int(number) == os.getpid() or not _is_running(int(number))):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, unless it is there. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made: {error.strerror or error}") from error
