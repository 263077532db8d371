"""Files that are complete or not there at all, and folders of our own."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from cisi_runtime.errors import OutputError

# Temporary files are named after the process that writes them and its machine, so that those of a killed process can be
# recognised: `.cisi-123@host-x1y2.png`.
_TEMPORARY = ".cisi-"


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


# Reading it means setting it, which is not safe once several threads run.
_UMASK = _read_umask()


def check_writable(path: Path) -> None:
    """Raise OutputError if `path` clearly cannot be written. Creates nothing."""
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
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, with the same suffix. Rename it to `path` when the block succeeds.

    On an error the temporary file is removed and an existing `path` stays as it was. File and folder are synced to the
    disk before and after the rename, so that a power cut leaves the old file or the new one. Raises OutputError.
    """
    check_writable(path)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        # mkstemp makes files that only their owner can read. A result gets the permissions of any new file.
        temporary.chmod(0o666 & ~_UMASK)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, which becomes `path` when the block succeeds and is removed otherwise.

    path: must not exist, or be empty (see `check_empty_folder`). Raises OutputError.
    """
    check_empty_folder(path)
    path = path.absolute()
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
        # mkdtemp makes folders that only their owner can enter.
        temporary.chmod(0o777 & ~_UMASK)
        yield temporary
        if path.is_dir():
            path.rmdir()  # fails where it has been filled meanwhile
        temporary.rename(path)
        temporary = None
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def check_empty_folder(path: Path) -> None:
    """Raise OutputError unless a folder is empty, or can be made. Creates nothing."""
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: is a file, expected a new or an empty folder")
        if path.is_dir() and any(path.iterdir()):
            raise OutputError(f"{path}: is not empty, expected a new or an empty folder")
        check_writable(path.absolute().parent / "new")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk. Not every system and file system can; then the rename is all there is."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_left_over(folder: Path) -> None:
    """Remove temporary files, in a folder and below, of processes of this machine that were killed while they wrote.

    POSIX only: elsewhere there is no harmless way to ask whether a process runs.
    """
    if os.name != "posix":
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.startswith(_TEMPORARY):
                number, _, machine = name.removeprefix(_TEMPORARY).rpartition("-")[0].partition("@")
                is_ours = number.isdecimal() and machine == platform.node()
                if is_ours and (int(number) == os.getpid() or not _is_running(int(number))):
                    Path(parent, name).unlink(missing_ok=True)


def _prefix() -> str:
    return f"{_TEMPORARY}{os.getpid()}@{platform.node()}-"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    # One that has ended stays in the table until its parent asks. Of a worker whose parent was killed that is the first
    # process, which in a container may never do so.
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except FileNotFoundError:
        return not Path("/proc/self").exists()  # gone this moment, or a system without /proc
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def make_folder(path: Path) -> None:
    """Make a folder and those above it unless they exist. Raises OutputError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made: {error.strerror or error}") from error


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user can enter (mode 0700). One that exists must be this user's, and is made so.

    Raises OutputError when another user owns it: its contents could be theirs.
    """
    make_folder(path.parent)
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if os.name != "posix":
            return
        status = path.stat()
        if status.st_uid != os.geteuid():
            raise OutputError(f"{path}: belongs to another user, expected a folder of your own")
        if status.st_mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made: {error.strerror or error}") from error


def cache_folder() -> Path:
    """Where engines and passed checks are kept: `$CISI_CACHE`, else `cisi-net` in the user's cache folder. Its contents
    may be deleted at any time."""
    configured = os.environ.get("CISI_CACHE")
    return Path(configured) if configured else platformdirs.user_cache_path("cisi-net", appauthor=False)
