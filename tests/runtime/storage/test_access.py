"""Reading, writing and listing on this machine and in a store in memory; what is said when a store's library lacks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from cisi_runtime.batch.folder import plan_folder
from cisi_runtime.errors import DataError, OutputError, PictureError, StorageError
from cisi_runtime.storage.access import (
    find_names,
    is_folder,
    is_present,
    is_same,
    make_writable_folder,
    read_address,
    remove_address,
    write_address,
)
from cisi_runtime.storage.addresses import Address, Url, parse_address
from tests.support.folder_runs import PROGRAM, photographs
from tests.support.shared import TIMEOUT_S

NAMES = ["a.png", "b/c.jpg", "b/d/e.txt", "é #?%20/f.png"]
HIDDEN = [".a.png", ".b/c.png", "b/.c.png", "b/.d/e.png"]


@pytest.fixture(params=["path", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Address]:
    """A folder that does not exist yet."""
    if request.param == "path":
        yield tmp_path / "folder"
        return
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]
    yield parse_address("memory://bucket/folder")
    store.store.clear()


def fill(folder: Address, *names: str) -> None:
    for name in names:
        if isinstance(folder, Path):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_address(folder / name, name.encode())


def found(folder: Address) -> list[str]:
    return sorted(name for page in find_names(folder) for name in page)


def test_what_is_written_is_read(folder: Address) -> None:
    make_writable_folder(folder)
    for name in ("a.png", "é #?%20.png"):
        for data in (b"", b"one", bytes(100_000)):
            write_address(folder / name, data)
            assert read_address(folder / name) == data
            assert is_present(folder / name)
            assert not is_folder(folder / name)
    assert is_present(folder)
    assert is_folder(folder)
    remove_address(folder / "a.png")
    remove_address(folder / "a.png")  # it may be gone
    assert not is_present(folder / "a.png")
    with pytest.raises(PictureError, match=r"a\.png: no such file"):
        read_address(folder / "a.png")


def test_a_folder_that_is_not_there(folder: Address) -> None:
    assert not is_folder(folder)
    assert not is_present(folder)
    with pytest.raises(PictureError, match="no such file"):
        read_address(folder / "a.png")
    remove_address(folder / "a.png")


def test_names(folder: Address) -> None:
    fill(folder, *NAMES, *HIDDEN)
    assert found(folder) == sorted(NAMES)
    assert found(folder / "b") == ["c.jpg", "d/e.txt"]
    # A page a folder: neither waits for the end, nor holds all.
    pages = find_names(folder)
    assert next(pages) == ["a.png"]
    assert len(list(pages)) >= 2
    assert found(folder / ".b") == ["c.png"]  # it was asked for


def test_a_folder_that_takes_files(folder: Address) -> None:
    fill(folder, "a.png")
    make_writable_folder(folder / "new")
    make_writable_folder(folder / "new")
    make_writable_folder(folder)
    assert found(folder) == ["a.png"]
    if not isinstance(folder, Path):
        assert list(fsspec.filesystem("memory").store) == ["/bucket/folder/a.png"]  # what was tried with is gone


def test_links(tmp_path: Path) -> None:
    fill(tmp_path / "p", *NAMES)
    (tmp_path / "p" / "file.png").symlink_to(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "around").symlink_to(tmp_path / "p")  # would go round for ever
    (tmp_path / "p" / "broken.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "link").symlink_to(tmp_path / "p")
    assert found(tmp_path / "p") == sorted([*NAMES, "file.png"])
    assert found(tmp_path / "link") == found(tmp_path / "p")
    assert is_same(tmp_path / "link", tmp_path / "p")
    assert is_same(tmp_path / "p" / "b" / ".." / "a.png", tmp_path / "p" / "file.png")
    assert not is_same(tmp_path / "p" / "a.png", tmp_path / "p" / "b" / "c.jpg")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "p" / "a.png")
    assert is_same(tmp_path / "hard.png", tmp_path / "p" / "a.png")
    assert not is_same(tmp_path / "nothing", tmp_path / "nothing else")


def test_same_in_a_store(tmp_path: Path) -> None:
    assert is_same(parse_address("s3a://b/x/"), parse_address("s3://b/x"))
    assert not is_same(parse_address("s3://b/x"), parse_address("s3://b/y"))
    assert not is_same(parse_address("s3://b/x"), tmp_path)
    assert not is_same(tmp_path, Url("s3", str(tmp_path)))


def test_what_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing: cannot be listed: No such file or directory"):
        found(tmp_path / "nothing")
    fill(tmp_path, *NAMES)
    with pytest.raises(DataError, match=r"a\.png: cannot be listed: Not a directory"):
        found(tmp_path / "a.png")
    # Root may read everything, so the refusal is made.
    plain = os.scandir

    def scandir(path: Path) -> object:
        if path.name == "d":
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        with pytest.raises(DataError, match="b/d: cannot be listed: Permission denied"):
            found(tmp_path)
        with pytest.raises(DataError, match="b/d: cannot be listed"):  # half a list would be taken for all
            plan_folder(tmp_path, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.png", "full/b.png")
    with pytest.raises(OutputError, match="folder .*nothing does not exist"):
        write_address(tmp_path / "nothing" / "a.png", b"")
    with pytest.raises(OutputError, match="is a folder, expected a file name"):
        write_address(tmp_path / "full", b"")
    with pytest.raises(OutputError, match="the folder cannot be made"):
        make_writable_folder(tmp_path / "a.png" / "below")
    with pytest.raises(OutputError, match="full: cannot be removed"):
        remove_address(tmp_path / "full")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(OutputError, match="the folder cannot be written to"):
        make_writable_folder(tmp_path / "full")


def test_a_run_in_memory(folder: Address) -> None:
    fill(folder, "p/a.png", "p/b/c.jpg", "p/.d.png", "m/a.png", "m/b/c.mask.png", "out/a.png", "out/.cisi-probe")
    with plan_folder(folder / "p", folder / "m", folder / "out") as plan:
        ((job,), existing) = list(plan.jobs()), plan.existing
    assert existing == 1
    assert (job.image, job.mask, job.output) == (
        folder / "p" / "b/c.jpg",
        folder / "m" / "b/c.mask.png",
        folder / "out" / "b/c.jpg",
    )


WITHOUT = "import sys; sys.modules[{module!r}] = None; import cisi_runtime.cli.run as m; m.main()"


def run_without(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM[:-1], WITHOUT.format(module=module), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


def test_without_fsspec(tmp_path: Path, tiny_graph: Path) -> None:
    photographs(tmp_path, 2)
    local = ["--mask", tmp_path / "masks", "-o", tmp_path / "out", "--model", tiny_graph, "--threads", 1]
    result = run_without("fsspec", tmp_path / "photos", *local)
    assert result.returncode == 0, result.stderr
    assert "2 written" in result.stdout
    for arguments in (
        ("s3://b/photos", *local),
        (tmp_path / "photos", "--mask", "s3://b/masks", "-o", tmp_path / "out"),
        (tmp_path / "photos", "--mask", tmp_path / "masks", "-o", "s3://b/out"),
    ):
        result = run_without("fsspec", *arguments)
        assert result.returncode == 1
        assert result.stderr == ("cisi-run: error: needs fsspec: pip install 'cisi-net[storage]'\n")


@pytest.mark.parametrize(("address", "package"), [("s3://b/x", "s3fs"), ("gs://b/x", "gcsfs"), ("az://b/x", "adlfs")])
def test_without_the_library_of_a_store(monkeypatch: pytest.MonkeyPatch, address: str, package: str) -> None:
    url = parse_address(address)
    assert isinstance(url, Url)
    monkeypatch.setitem(sys.modules, package, None)
    for protocol in ("s3", "gs", "az"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)  # type: ignore[attr-defined]
    monkeypatch.setattr("cisi_runtime.storage.remote._filesystem", lambda protocol: fsspec.filesystem(protocol))
    with pytest.raises(StorageError, match=f"^{address}: needs {package}, expected pip install {package}$"):
        read_address(url)
    with pytest.raises(StorageError, match=f"expected pip install {package}$"):
        found(url)
    with pytest.raises(OutputError, match=f"expected pip install {package}$"):
        make_writable_folder(url)


def test_without_s3fs_by_command() -> None:
    result = run_without("s3fs", "s3://b/photos", "--mask", "m", "-o", "out")
    assert result.returncode == 1
    assert result.stderr == "cisi-run: error: s3://b/photos: needs s3fs, expected pip install s3fs\n"
