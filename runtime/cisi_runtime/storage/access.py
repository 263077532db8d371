"""Reading, writing and listing at an address of either kind."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.errors import DataError, OutputError, StorageError
from cisi_runtime.files import atomic_file, make_folder
from cisi_runtime.pictures.reading import read_file
from cisi_runtime.storage.addresses import Address, identity
from cisi_runtime.storage.remote import (
    check_folder_url,
    find_below,
    is_folder_url,
    is_present_url,
    read_url,
    remove_url,
    write_url,
)

# Files of a folder that are looked at together.
_PAGE = 10_000


def read_address(address: Address) -> bytes:
    """The bytes of a file. Raises PictureError, StorageError."""
    return read_file(address) if isinstance(address, Path) else read_url(address)


def write_address(address: Address, data: bytes) -> None:
    """Write a file completely or not at all. Raises OutputError, StorageError."""
    if isinstance(address, Path):
        with atomic_file(address) as temporary:
            temporary.write_bytes(data)
    else:
        write_url(address, data)


def remove_address(address: Address) -> None:
    """Remove a file that may be there. Raises OutputError, StorageError."""
    if not isinstance(address, Path):
        remove_url(address)
        return
    try:
        address.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{address}: cannot be removed: {error.strerror or error}") from error


def is_folder(address: Address) -> bool:
    """Whether an address is that of a folder. Raises StorageError."""
    return os.path.isdir(address) if isinstance(address, Path) else is_folder_url(address)  # noqa: PTH112  names too long


def is_present(address: Address) -> bool:
    """Whether there is a file or a folder at an address. Raises StorageError."""
    return os.path.exists(address) if isinstance(address, Path) else is_present_url(address)  # noqa: PTH110  names too long


def is_same(address: Address, other: Address) -> bool:
    """Whether two addresses are those of one file or folder, also under other names."""
    if isinstance(address, Path) and isinstance(other, Path):
        return address.exists() and other.exists() and address.samefile(other)
    return identity(address) == identity(other)


def make_writable_folder(address: Address) -> None:
    """Make a folder unless it exists, and raise OutputError if it does not take files."""
    if not isinstance(address, Path):
        try:
            check_folder_url(address)
        except StorageError as error:
            raise OutputError(str(error)) from error
        return
    make_folder(address)
    if not os.access(address, os.W_OK):
        raise OutputError(f"{address}: the folder cannot be written to")


def find_names(folder: Address) -> Iterator[list[str]]:
    """Names of the files in a folder and below, relative to it, in pages. Hidden ones, and those in hidden folders, are
    left out. Raises DataError for what cannot be listed, StorageError."""
    if isinstance(folder, Path):
        yield from _local_names(folder, "")
        return
    for page in find_below(folder):
        yield [name for name in page if not name.startswith(".") and "/." not in name]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads nowhere
        return False


def _local_names(folder: Path, below: str) -> Iterator[list[str]]:
    subfolders: list[str] = []
    try:
        with os.scandir(folder) as found:
            # In the order of their names, where a page holds them all.
            while entries := sorted(itertools.islice(found, _PAGE), key=lambda entry: entry.name):
                shown = [entry for entry in entries if not entry.name.startswith(".")]
                subfolders += (entry.name for entry in shown if entry.is_dir(follow_symlinks=False))
                yield [below + entry.name for entry in shown if _is_file(entry)]
    except OSError as error:
        if below and isinstance(error, FileNotFoundError):
            return  # removed since the folder above was listed
        raise DataError(f"{folder}: cannot be listed: {error.strerror or error}") from error
    for name in subfolders:
        yield from _local_names(folder / name, f"{below}{name}/")
