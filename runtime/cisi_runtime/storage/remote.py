"""Files in a store, through fsspec."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any

from cisi_runtime.errors import PictureError, StorageError
from cisi_runtime.storage.addresses import Url
from cisi_runtime.storage.pages import is_directory, pages_of

# What brings each store, and how its users say who they are.
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or a service account",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_CONNECTION_STRING, or an identity",
}
# How the stores' libraries name the lack of credentials.
_NO_CREDENTIALS = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"}
    | {"RefreshError", "CredentialUnavailableError", "ClientAuthenticationError"}
)
# Written and removed to see whether a folder takes files.
_PROBE = ".cisi-probe"


def read_url(url: Url) -> bytes:
    """Raises PictureError for a file that is not there, StorageError when the store does not answer."""
    try:
        with _errors_of(url):
            data: bytes = _filesystem(url.protocol).cat_file(url.path)
            return data
    except FileNotFoundError as error:
        raise PictureError(f"{url}: no such file") from error


def write_url(url: Url, data: bytes) -> None:
    """Upload completely or not at all. Raises StorageError."""
    try:
        with _errors_of(url):
            _filesystem(url.protocol).pipe_file(url.path, data)
    except FileNotFoundError as error:
        raise StorageError(f"{url}: cannot be written: no such bucket") from error


def remove_url(url: Url) -> None:
    """Remove a file that may be there. Raises StorageError."""
    with _errors_of(url), contextlib.suppress(FileNotFoundError):
        filesystem = _filesystem(url.protocol)
        if filesystem.exists(url.path):
            filesystem.rm_file(url.path)


def is_folder_url(url: Url) -> bool:
    """Whether there are files below an address. Raises StorageError."""
    with _errors_of(url):
        return is_directory(_filesystem(url.protocol), url.protocol, url.path)


def is_present_url(url: Url) -> bool:
    """Whether there is a file, or files below it, at an address. Raises StorageError."""
    with _errors_of(url):
        filesystem = _filesystem(url.protocol)
        # s3fs takes a bucket that it cannot ask for as one that is not there, so the folder is asked for first.
        return is_directory(filesystem, url.protocol, url.path) or bool(filesystem.exists(url.path))


def find_below(url: Url) -> Iterator[list[str]]:
    """Names of all files below a folder, in pages; none where there is no such folder. Raises StorageError."""
    with _errors_of(url), contextlib.suppress(FileNotFoundError):
        yield from pages_of(_filesystem(url.protocol), url.protocol, url.path)


def check_folder_url(url: Url) -> None:
    """Raise StorageError unless a folder takes files: write an empty one and remove it."""
    probe = url / _PROBE
    write_url(probe, b"")
    # Whoever may write and not remove leaves one empty file.
    with contextlib.suppress(StorageError):
        remove_url(probe)


@functools.cache
def _filesystem(protocol: str) -> Any:
    import fsspec

    # They log what they raise, with tracebacks, and gcsfs that it cannot find out a bucket's kind, at each access.
    for library in ("gcsfs", "azure"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
    # Other processes write to the same folders, so no listing is kept.
    return fsspec.filesystem(protocol, use_listings_cache=False)


@contextlib.contextmanager
def _errors_of(url: Url) -> Iterator[None]:
    """FileNotFoundError as it is, whatever else a store's library raises as StorageError. Retries are the library's:
    each of them has some, with pauses that grow."""
    try:
        yield
    except (FileNotFoundError, StorageError):
        raise
    except ImportError as error:
        if getattr(error, "name", None) == "fsspec":
            raise
        package = _PACKAGES.get(url.protocol, "a package of fsspec")
        raise StorageError(f"{url}: needs {package}, expected pip install {package}") from error
    except Exception as error:
        if type(error).__name__ == "ResourceNotFoundError":  # Azure's
            raise FileNotFoundError(_line(error)) from error
        if _lacks_credentials(error):
            expected = _CREDENTIALS[url.protocol]
            raise StorageError(f"{url}: no credentials ({_line(error)}), expected {expected}") from error
        if isinstance(error, PermissionError):
            raise StorageError(f"{url}: access denied: {_line(error)}") from error
        raise StorageError(f"{url}: {_line(error)}") from error


def _lacks_credentials(error: Exception) -> bool:
    if type(error).__name__ in _NO_CREDENTIALS or getattr(error, "code", None) == 401:  # of gcsfs
        return True
    return isinstance(error, ValueError) and "unable to connect to account" in str(error)  # adlfs has no account


def _line(error: Exception) -> str:
    """What an error says, in one line."""
    # s3fs invents a number for each of S3's errors: 121, "remote I/O error", for InternalError.
    text = (isinstance(error, OSError) and error.strerror) or str(error)
    if type(error).__module__.startswith("azure."):
        text = text.partition("\n")[0]  # the answer's headers and XML follow
    return " ".join(text.split()) or type(error).__name__
