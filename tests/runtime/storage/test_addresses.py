"""What is a path, what is an address in a store, and what lies below what."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisi_runtime.errors import StorageError
from cisi_runtime.storage.addresses import PROTOCOLS, Address, Url, identity, name_below, parse_address

# A part of a name in a store: anything but a slash.
PARTS = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,20}[a-z0-9]", fullmatch=True)
# Names of files may hold any byte but these two.
FILE_NAMES = st.binary(min_size=1).map(lambda name: name.replace(b"/", b"_").replace(b"\0", b"_")).map(os.fsdecode)


@pytest.mark.parametrize(
    "text", ["a.png", "/a/b.png", "-", ".", "a:b", "s3:/b/x", "C:\\a", "a//b", "~/a", "s3:", "é #?%20"]
)
def test_a_path(text: str) -> None:
    assert parse_address(text) == Path(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///a/b.png", "/a/b.png"),
        ("file://localhost/a", "/a"),
        ("file:///", "/"),
        ("file:///a/", "/a"),
        ("file:///a%20b%23%3F%25", "/a b#?%"),
        ("file:///%C3%A9/é", "/é/é"),
        ("file:///a;b=c&d[e]", "/a;b=c&d[e]"),
        ("file:///a::b", "/a::b"),
    ],
)
def test_a_file_of_this_machine(text: str, path: str) -> None:
    assert parse_address(text) == Path(path)


@given(st.lists(FILE_NAMES.filter(lambda name: name not in (".", "..")), max_size=4))
def test_any_path_as_an_address(names: list[str]) -> None:
    path = Path("/", *names)
    assert parse_address(path.as_uri()) == path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://b", "s3://b"),
        ("s3://b/", "s3://b"),
        ("s3://b///", "s3://b"),
        ("s3://b/x/", "s3://b/x"),
        ("s3a://b/x", "s3://b/x"),
        ("gs://b/x", "gs://b/x"),
        ("gcs://b/x", "gs://b/x"),
        ("az://c/x", "az://c/x"),
        ("abfs://c@account.dfs.core.windows.net/x", "az://c@account.dfs.core.windows.net/x"),
        ("abfss://c/x", "az://c/x"),
        ("memory://a", "memory://a"),
        ("memory:///a/b/", "memory://a/b"),
        ("s3://b/a//c", "s3://b/a//c"),
        ("s3://b/./../c", "s3://b/./../c"),
        ("s3://b/a b+c%20é#?d", "s3://b/a b+c%20é#?d"),
        ("s3://b/x://y", "s3://b/x://y"),
    ],
)
def test_an_address_in_a_store(text: str, expected: str) -> None:
    address = parse_address(text)
    assert isinstance(address, Url)
    assert str(address) == expected
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://b/x", "unknown protocol 'http', expected a path, file, s3, "),
        ("S3://b/x", "unknown protocol 'S3'"),
        ("://b/x", "unknown protocol ''"),
        ("simplecache::s3://b/x", "unknown protocol 'simplecache::s3'"),
        ("s3://", "expected s3://BUCKET/NAME"),
        ("s3:///", "expected s3://BUCKET/NAME"),
        ("s3:///x", "expected s3://BUCKET/NAME"),
        ("gcs:///x", "expected gcs://BUCKET/NAME"),
        ("memory://", "expected memory://BUCKET/NAME"),
        ("memory:///", "expected memory://BUCKET/NAME"),
        ("s3://b/x::file:///y", "expected one address of a file or a folder, without a version"),
        ("s3://b/x?versionId=1", "without a version"),
        ("file://", "expected file:///PATH"),
        ("file://a", "expected file:///PATH"),
        ("file://a/b", "expected file:///PATH"),
        ("file://[/b", "expected file:///PATH"),
        # Nobody means a folder of the first half by these.
        ("file:///a?b", "expected file:///PATH"),
        ("file:///a#b", "expected file:///PATH"),
        ("file:///a%00b", "expected file:///PATH"),
    ],
)
def test_no_address(text: str, words: str) -> None:
    with pytest.raises(StorageError) as error:
        parse_address(text)
    assert str(error.value).startswith(f"{text}: ")
    assert words in str(error.value)


@given(st.text())
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    for protocol in ("", "file://", "file:///", *(f"{name}://" for name in PROTOCOLS)):
        with contextlib.suppress(StorageError):
            address = parse_address(protocol + text)
            if not isinstance(address, Path):
                assert parse_address(str(address)) == address
                assert not address.path.startswith("/")
                assert not address.path.endswith("/")


def test_parts_of_an_address() -> None:
    url = parse_address("s3a://b/x.y/c.PNG/")
    assert isinstance(url, Url)
    assert (url.name, url.suffix, str(url / "d/e.jpg")) == ("c.PNG", ".PNG", "s3://b/x.y/c.PNG/d/e.jpg")
    bucket = parse_address("gs://b.png")
    assert isinstance(bucket, Url)
    assert (bucket.name, bucket.suffix) == ("b.png", ".png")
    assert Url("s3", "b/.png").suffix == ""
    assert {Url("s3", "b"): 1}[parse_address("s3a://b/")] == 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("s3://b/x", "s3a://b/x//", True),
        ("gs://b/x", "gcs://b/x", True),
        ("az://c/x", "abfss://c@account.dfs.core.windows.net/x", True),
        ("az://c@one/x", "az://c@other/x", True),  # perhaps not the same: an original is rather kept
        ("az://c", "az://c@account", True),
        ("memory:///a", "memory://a", True),
        ("s3://b/x", "gs://b/x", False),
        ("s3://b/x", "s3://b/X", False),
        ("s3://b/x@1", "s3://b/x@2", False),
        ("s3://b/x", "s3://b/./x", False),  # two names in a store
        ("/a/../b", "/b", True),
        ("file:///b", "/b", True),
        ("b", "./b", True),
        ("/b/x", "s3://b/x", False),
    ],
)
def test_two_spellings(one: str, other: str, are_one: bool) -> None:
    assert (identity(parse_address(one)) == identity(parse_address(other))) == are_one


@pytest.mark.parametrize(
    ("address", "folder", "name"),
    [
        ("s3://b/x/y/1.png", "s3://b/x", "y/1.png"),
        ("s3a://b/x/y", "s3://b", "x/y"),
        ("s3://b/x", "s3a://b/x/", ""),
        ("s3://b/xy", "s3://b/x", None),
        ("s3://b/x", "s3://b/x/y", None),
        ("s3://bb/x", "s3://b", None),
        ("gs://b/x", "s3://b", None),
        ("az://c@account/x/1.png", "abfs://c/x", "1.png"),
        ("/a/b/c", "/a", "b/c"),
        ("/a/b/../../c", "/a", None),
        ("/a", "/a", ""),
        ("/ab", "/a", None),
        ("/a/b", "/", "a/b"),
        ("/", "/", ""),
        ("/a", "s3://a", None),
        ("s3://a/b", "/", None),
    ],
)
def test_below(address: str, folder: str, name: str | None) -> None:
    assert name_below(parse_address(address), parse_address(folder)) == name


def test_below_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert name_below(tmp_path / "link" / "1.png", tmp_path / "a") == "1.png"
    assert name_below(tmp_path / "a" / "1.png", tmp_path / "link") == "1.png"


@given(BUCKETS, st.lists(PARTS, max_size=3), st.lists(PARTS, min_size=1, max_size=3))
def test_what_was_put_below_lies_there(bucket: str, above: list[str], below: list[str]) -> None:
    folder: Address = Url("s3", "/".join([bucket, *above]))
    name = "/".join(below)
    assert name_below(folder / name, folder) == name
    assert name_below(folder, folder) == ""
    assert name_below(folder, folder / name) is None
