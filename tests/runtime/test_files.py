"""Files that are complete or not there, and folders that belong to their user alone."""

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cisi_runtime.batch.only_run import only_run
from cisi_runtime.errors import OutputError
from cisi_runtime.files import atomic_file, atomic_files, atomic_folder, make_folder, make_private_folder


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed from now on: names below `tmp_path`, "*" for temporary ones."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("reads which file a descriptor is from /proc: run it on Linux")
    recorded: list[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def shown(path: Path) -> str:
        parts = ("*" if part.startswith(".cisi-") else part for part in path.relative_to(tmp_path).parts)
        return str(Path(*parts))

    def recorded_fsync(descriptor: int) -> None:
        recorded.append(f"sync {shown(Path(f'/proc/self/fd/{descriptor}').resolve())}")
        fsync(descriptor)

    def recorded_replace(self: Path, target: Path) -> Path:
        recorded.append(f"rename to {shown(target)}")
        return replace(self, target)

    def recorded_rename(self: Path, target: Path) -> Path:
        recorded.append(f"rename to {shown(target)}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    monkeypatch.setattr(Path, "rename", recorded_rename)
    return recorded


@contextlib.contextmanager
def full_after(size: int) -> Iterator[None]:
    """This process cannot make a file longer than `size` bytes: the error comes where that of a full disk comes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_and_its_folder_are_synced_around_the_rename(tmp_path: Path, events: list[str]) -> None:
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("content")
    assert events == ["sync *", "rename to a.txt", "sync ."]
    assert (tmp_path / "a.txt").read_text() == "content"


def test_files_that_belong_together_are_all_synced_before_the_first_rename(tmp_path: Path, events: list[str]) -> None:
    with atomic_files(tmp_path / "a", tmp_path / "b") as (first, second):
        first.write_text("1")
        second.write_text("2")
    assert events == ["sync *", "sync *", "rename to a", "rename to b", "sync .", "sync ."]
    assert [path.read_text() for path in (tmp_path / "a", tmp_path / "b")] == ["1", "2"]


def test_a_folder_is_synced_with_all_that_is_in_it(tmp_path: Path, events: list[str]) -> None:
    with atomic_folder(tmp_path / "out") as temporary:
        (temporary / "below").mkdir()
        for name in ("a", "below/b"):
            (temporary / name).write_text(name)
    assert events == ["sync */below/b", "sync */below", "sync */a", "sync *", "rename to out", "sync ."]
    assert (tmp_path / "out" / "below" / "b").read_text() == "below/b"


def test_a_folder_beside_another_one_and_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    for name in ("out", "link"):
        with atomic_folder(tmp_path / name) as temporary:
            (temporary / "a").write_text("content")
        assert (tmp_path / name / "a").read_text() == "content"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "empty" / "a").exists()


def test_folders_that_are_made_are_synced_into_those_above(tmp_path: Path, events: list[str]) -> None:
    make_folder(tmp_path / "a" / "b")
    assert sorted(events) == ["sync .", "sync a"]


def write_file(path: Path, data: bytes) -> None:
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def write_pair(path: Path, data: bytes) -> None:
    with atomic_files(path.with_name("small"), path) as (small, large):
        small.write_bytes(data[:9])
        large.write_bytes(data)


def write_folder(path: Path, data: bytes) -> None:
    with atomic_folder(path.with_name("new")) as temporary:
        (temporary / "large").write_bytes(data)


WAYS = [write_file, write_pair, write_folder]


@pytest.mark.parametrize("write", WAYS)
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    for name in ("small", "large"):
        (tmp_path / name).write_text("old")
    with full_after(1000), pytest.raises(OutputError, match="cannot be written: File too large"):
        write(tmp_path / "large", bytes(1001))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"small": "old", "large": "old"}


@pytest.mark.parametrize("write", WAYS)
@pytest.mark.parametrize("sync_number", [1, 2])
def test_a_disk_that_turns_out_full_when_it_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None], sync_number: int
) -> None:
    for name in ("small", "large"):
        (tmp_path / name).write_text("old")
    syncs = iter(range(1, 9))

    def full(_descriptor: int) -> None:
        if next(syncs) == sync_number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        write(tmp_path / "large", b"new")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    # The second sync of a single file is that of its folder: whether the rename is on the disk is not known.
    is_renamed = write is write_file and sync_number == 2
    assert found == {"small": "old", "large": "new" if is_renamed else "old"}


@pytest.mark.parametrize(
    "write", [*WAYS, lambda path, _: make_folder(path), lambda path, _: only_run(path).__enter__()]
)
def test_a_folder_that_takes_no_files(write: Callable[[Path, bytes], None]) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("/proc takes no files: run it on Linux")
    # The system says "no such file" of it to root, and denies it to others.
    with pytest.raises(OutputError, match="/proc takes no new files, expected another|cannot be written to|denied"):
        write(Path("/proc/x"), b"new")


@pytest.mark.parametrize("write", WAYS)
def test_a_folder_that_may_not_be_written_to(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    for name in ("small", "large"):
        (tmp_path / name).write_text("old")
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user, root, may write anywhere: run it as another")
    with pytest.raises(OutputError, match="cannot be written to"):
        write(tmp_path / "large", b"new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"small": "old", "large": "old"}


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_file(path) as temporary:
            temporary.write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "engines"
    make_private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    make_private_folder(folder)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "engines"
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(OutputError, match="belongs to another user, expected a folder of your own"):
        make_private_folder(folder)


def test_a_link_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may lead to a folder of our own that is none of ours to fill."""
    mine = tmp_path / "mine"
    mine.mkdir()
    link = tmp_path / "cache" / "engines"
    link.parent.mkdir()
    link.symlink_to(mine)
    make_private_folder(link)
    mine.chmod(0o755)
    of_another = os.stat_result((*tuple(os.lstat(link))[:4], os.geteuid() + 1, *tuple(os.lstat(link))[5:]))
    lstat = Path.lstat
    monkeypatch.setattr(Path, "lstat", lambda self: of_another if self == link else lstat(self))
    with pytest.raises(OutputError, match="engines: belongs to another user, expected a folder of your own"):
        make_private_folder(link)
    assert mine.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_fill_is_refused(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "cache" / "engines"
    make_private_folder(folder)
    folder.chmod(mode)
    with pytest.raises(OutputError, match="engines: others can write to it, so its contents may be theirs; remove it"):
        make_private_folder(folder)


def test_a_folder_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    above = tmp_path / "cache"
    make_private_folder(above / "engines")
    above.chmod(0o777)
    with pytest.raises(OutputError, match="cache: everybody can write to it, expected a folder of your own"):
        make_private_folder(above / "engines")
    above.chmod(0o1777)  # as /tmp
    make_private_folder(above / "engines")
