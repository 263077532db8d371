"""Files that are complete or not there at all, and folders of our own."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from cisi_runtime.errors import OutputError

# Temporary files are named after the process that writes them and its machine, so that those of a killed process can be
# recognised: `.cisi-123@host-x1y2.png`.
_TEMPORARY = ".cisi-"
_DAY_S = 86_400.0


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


# Reading it means setting it, which is not safe once several threads run.
_UMASK = _read_umask()


def check_writable(path: Path) -> None:
    """Raise OutputError if `path` clearly cannot be written. Creates nothing."""
    try:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder, expected a file name")
        _check_folder(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _check_folder(path: Path) -> None:
    """Raise OutputError if the folder that `path` lies in takes nothing new."""
    if not path.parent.is_dir():
        raise OutputError(f"{path}: folder {path.parent} does not exist")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: folder {path.parent} cannot be written to")


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, with the same suffix. Rename it to `path` when the block succeeds.

    On an error the temporary file is removed and an existing `path` stays as it was. The file is synced to the disk
    before the rename, its folder after it, so that a power cut leaves the old file or the new one. Raises OutputError.
    """
    with atomic_files(path) as (temporary,):
        yield temporary


@contextlib.contextmanager
def atomic_files(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """As `atomic_file`, for files that belong together: all are on the disk before the first is renamed.

    A full disk leaves all old files. Renames follow each other in the order of `paths`; whoever reads them must notice
    when the process ended between two of them.
    """
    temporaries: list[Path] = []
    path = paths[0]
    try:
        for path in paths:
            check_writable(path)
            temporaries.append(_new_file(path))
        yield tuple(temporaries)
        for path, temporary in zip(paths, temporaries, strict=True):  # noqa: B007  the message names it
            _sync(temporary)
        for path, temporary in zip(paths, temporaries, strict=True):
            temporary.replace(path)
        for path in paths:
            _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        for temporary in temporaries:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`, which becomes `path` when the block succeeds and is removed otherwise.

    All that is in it is synced to the disk before the rename, the folder above after it.

    path: must not exist, or be empty (see `check_empty_folder`). Raises OutputError.
    """
    check_empty_folder(path)
    path = path.resolve() if path.is_dir() else path.absolute()  # a link to an empty folder stays
    temporary: Path | None = None
    try:
        try:
            temporary = Path(tempfile.mkdtemp(prefix=_prefix(), dir=path.parent))
        except FileNotFoundError as error:
            raise OutputError(f"{path}: {_nothing_can_be_made(path.parent)}") from error
        # mkdtemp makes folders that only their owner can enter.
        temporary.chmod(0o777 & ~_UMASK)
        yield temporary
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                _sync(Path(folder, name))
            _sync_folder(Path(folder))
        if path.is_dir():
            path.rmdir()  # fails where it has been filled meanwhile
        temporary.rename(path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _new_file(path: Path) -> Path:
    """A new empty file beside `path`, with a temporary name and the permissions of any new file."""
    try:
        handle, name = tempfile.mkstemp(prefix=_prefix(), suffix=path.suffix, dir=path.parent)
    except FileNotFoundError as error:
        raise OutputError(f"{path}: {_nothing_can_be_made(path.parent)}") from error
    os.close(handle)
    temporary = Path(name)
    # mkstemp makes files that only their owner can read.
    temporary.chmod(0o666 & ~_UMASK)
    return temporary


def _nothing_can_be_made(folder: Path) -> str:
    """What a folder like /proc means by "no such file", which it says of a new one."""
    return f"cannot be written: {folder} takes no new files, expected another folder"


def check_empty_folder(path: Path) -> None:
    """Raise OutputError unless a folder is empty, or can be made. Creates nothing."""
    try:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path}: is a file, expected a new or an empty folder")
        if path.is_dir() and any(path.iterdir()):
            raise OutputError(f"{path}: is not empty, expected a new or an empty folder")
        _check_folder(path.absolute())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to the disk. Not every system and file system can; then the rename is all there is."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):  # it can, and has failed
            raise


def remove_left_over(folder: Path) -> None:
    """Remove temporary files, in a folder and below, of processes of this machine that were killed while they wrote,
    and of other machines where they are older than a day: every container is a machine of its own.

    POSIX only: elsewhere there is no harmless way to ask whether a process runs.
    """
    if os.name != "posix":
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.startswith(_TEMPORARY):
                number, _, machine = name.removeprefix(_TEMPORARY).rpartition("-")[0].partition("@")
                path = Path(parent, name)
                if number.isdecimal() and (
                    _is_old(path)
                    if machine != platform.node()
                    else int(number) == os.getpid() or not _is_running(int(number))
                ):
                    path.unlink(missing_ok=True)


def _prefix() -> str:
    return f"{_TEMPORARY}{os.getpid()}@{platform.node()}-"


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > _DAY_S
    except FileNotFoundError:  # finished this moment
        return False


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
    """Make a folder and those above it unless they exist, and sync what was made. Raises OutputError."""
    try:
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in new:
            _sync_folder(folder.parent)
    except FileNotFoundError as error:
        raise OutputError(f"{path}: {_nothing_can_be_made((new or [path])[-1].parent)}") from error
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made: {error.strerror or error}") from error


def make_private_folder(path: Path) -> None:
    """Make a folder that only this user can enter (mode 0700). One that exists must be this user's, and is made so.

    Raises OutputError where its contents could be another user's: it, or the folder that holds it, belongs to one or
    can be written to by others.
    """
    make_folder(path.parent)
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        if os.name != "posix":
            return
        _check_owner(path.parent, 0, os.geteuid())
        _check_owner(path, os.geteuid())
        above, mode = path.parent.stat().st_mode, path.stat().st_mode
        # In a sticky folder, as /tmp is, nobody can put another folder in this one's place.
        if above & stat.S_IWOTH and not above & stat.S_ISVTX:
            raise OutputError(f"{path.parent}: everybody can write to it, expected a folder of your own")
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise OutputError(f"{path}: others can write to it, so its contents may be theirs; remove it")
        if mode & 0o077:
            path.chmod(0o700)
    except OSError as error:
        raise OutputError(f"{path}: the folder cannot be made: {error.strerror or error}") from error


def _check_owner(folder: Path, *users: int) -> None:
    """Raise OutputError unless a folder belongs to one of these users. So must a link that leads to it: whoever made it
    chose the folder."""
    if not {folder.lstat().st_uid, folder.stat().st_uid} <= set(users):
        raise OutputError(f"{folder}: belongs to another user, expected a folder of your own")


def cache_folder() -> Path:
    """Where engines and passed checks are kept: `$CISI_CACHE`, else `cisi-net` in the user's cache folder. Its contents
    may be deleted at any time."""
    configured = os.environ.get("CISI_CACHE")
    return Path(configured) if configured else platformdirs.user_cache_path("cisi-net", appauthor=False)
