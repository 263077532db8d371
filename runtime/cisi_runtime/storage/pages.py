"""Names in a store, a page at a time: a folder may hold millions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any


def pages_of(filesystem: Any, protocol: str, path: str) -> Iterator[list[str]]:
    """Names of all files below a folder, relative to it, in pages.

    filesystem: of fsspec. path: begins with the bucket or container.
    """
    bucket, _, folder = path.partition("/")
    prefix = f"{folder}/" if folder else ""
    if protocol == "s3":
        names = _s3_pages(filesystem, bucket, prefix)
    elif protocol == "gs":
        names = _gs_pages(filesystem, bucket, prefix)
    elif protocol == "az":
        names = _az_pages(filesystem, bucket.partition("@")[0], prefix)
    else:
        names = _walked(filesystem, path)
        prefix = f"/{path}/"
    for page in names:
        # A name that ends with a slash stands for an empty folder.
        yield [name.removeprefix(prefix) for name in page if not name.endswith("/")]


def is_directory(filesystem: Any, protocol: str, path: str) -> bool:
    """Whether a path is that of a bucket, or there are files below it.

    filesystem: of fsspec. path: begins with the bucket or container.
    """
    if protocol != "s3":
        return bool(filesystem.isdir(path))
    # That of s3fs (2026.9.0) lists the whole folder, all its pages.
    bucket, _, folder = path.partition("/")
    prefix = f"{folder}/" if folder else ""
    try:
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except FileNotFoundError:
        return False
    return not folder or bool(page.get("Contents"))


def _s3_pages(filesystem: Any, bucket: str, prefix: str) -> Iterator[list[str]]:
    more: dict[str, str] = {}
    while True:
        page = filesystem.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        yield [entry["Key"] for entry in page.get("Contents", ())]
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _gs_pages(filesystem: Any, bucket: str, prefix: str) -> Iterator[list[str]]:
    more: dict[str, str] = {}
    while True:
        fields = "items(name),nextPageToken"
        page = filesystem.call("GET", "b/{}/o", bucket, prefix=prefix, fields=fields, json_out=True, **more)
        yield [entry["name"] for entry in page.get("items", ())]
        if "nextPageToken" not in page:
            return
        more = {"pageToken": page["nextPageToken"]}


def _az_pages(filesystem: Any, container: str, prefix: str) -> Iterator[list[str]]:
    from fsspec.asyn import sync

    client = filesystem.service_client.get_container_client(container)
    pages: AsyncIterator[AsyncIterator[Any]] = client.list_blobs(name_starts_with=prefix or None).by_page()

    async def next_page() -> list[str] | None:
        try:
            # Where folders are real, they are listed too.
            return [
                blob.name async for blob in await anext(pages) if (blob.metadata or {}).get("hdi_isfolder") != "true"
            ]
        except StopAsyncIteration:
            return None

    while (page := sync(filesystem.loop, next_page)) is not None:
        yield page


def _walked(filesystem: Any, path: str) -> Iterator[list[str]]:
    for folder, _, files in filesystem.walk(f"/{path}", on_error="raise"):
        yield [f"{folder}/{name}" for name in files]
