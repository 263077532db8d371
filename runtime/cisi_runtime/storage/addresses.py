"""Where a file or a folder lies: a path of this machine, or an address in a store."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path, PurePosixPath
from urllib.parse import unquote_to_bytes

from cisi_runtime.errors import StorageError

# Stores that hold an upload as a whole or not at all, by the names they go by.
PROTOCOLS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gs",
    "gcs": "gs",
    "az": "az",
    "abfs": "az",
    "abfss": "az",
    "memory": "memory",
}


@dataclasses.dataclass(frozen=True)
class Url:
    """An address in a store.

    protocol: "s3", "gs", "az" or "memory".
    path: what follows `://`, beginning with the bucket or container, without a slash at the end.
    """

    protocol: str
    path: str

    def __str__(self) -> str:
        return f"{self.protocol}://{self.path}"

    def __truediv__(self, name: str) -> Url:
        return Url(self.protocol, f"{self.path}/{name}")

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> Url:
        """What comes before the last slash."""
        return Url(self.protocol, self.path.rpartition("/")[0])

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return PurePosixPath(self.name).suffix


Address = Path | Url


def parse_address(text: str) -> Address:
    """A path, or the address that `text` is. `file://` is a path of this machine.

    Raises StorageError for another protocol, and for an address that names no bucket or is empty: an unset variable is
    not the current folder.
    """
    if not text:
        raise StorageError("'': expected a path or an address; the current folder is .")
    if "\0" in text:
        raise StorageError(f"{text!r}: expected a path or an address, without a null character")
    protocol, separator, path = text.partition("://")
    if not separator:
        return Path(text)
    if protocol == "file":
        host, slash, name = path.partition("/")
        name = os.fsdecode(unquote_to_bytes(name.encode(errors="surrogateescape")))
        # `?` and `#` would end a path, and are %3F and %23 in it.
        if host not in ("", "localhost") or not slash or not {"?", "#"}.isdisjoint(path) or "\0" in name:
            raise StorageError(f"{text}: expected file:///PATH, a path of this machine")
        return Path(f"/{name}")
    if protocol not in PROTOCOLS:
        raise StorageError(f"{text}: unknown protocol {protocol!r}, expected a path, file, {', '.join(PROTOCOLS)}")
    path = path.rstrip("/")
    if PROTOCOLS[protocol] == "memory":
        path = path.lstrip("/")  # memory:///a is memory://a
    if not path or path.startswith("/"):
        raise StorageError(f"{text}: expected {protocol}://BUCKET/NAME")
    if "::" in text or "?versionId=" in text:
        raise StorageError(f"{text}: expected one address of a file or a folder, without a version")
    return Url(PROTOCOLS[protocol], path)


def identity(address: Address) -> str:
    """What two spellings of one address have in common. Of an Azure address that is the container and the name, so that
    the same ones in two accounts count as one."""
    if isinstance(address, Path):
        return str(address.resolve())
    container, slash, name = address.path.partition("/")
    return f"{address.protocol}://{container.partition('@')[0]}{slash}{name}"


def name_below(address: Address, folder: Address) -> str | None:
    """The name of a file or folder below a folder, "" for the folder itself, None where it does not lie there."""
    inner, outer = identity(address), identity(folder)
    if inner == outer:
        return ""
    outer = f"{outer.rstrip('/')}/"
    return inner.removeprefix(outer) if inner.startswith(outer) else None
