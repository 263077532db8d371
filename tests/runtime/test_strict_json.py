import dataclasses
from pathlib import Path

import pytest

from cisi_runtime.errors import EngineError
from cisi_runtime.strict_json import MAX_JSON_BYTES, convert, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice, expected it once"),
        (b'{"a": {"b": 1, "b": 1}}', "the key 'b' is there twice"),
        (b'[{"a": 1, "\\u0061": 2}]', "the key 'a' is there twice"),
        (b"[" * 100_000, "not JSON in UTF-8: maximum recursion depth"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON in UTF-8"),
        (b'{"a": 1e999}', "not JSON in UTF-8"),
        (b'{"a": NaN}', "not JSON in UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON in UTF-8"),
        ("{}".encode("utf-16"), "not JSON in UTF-8"),
        (b'{"a": "\xff"}', "not JSON in UTF-8"),
        (b'{"a": "\\ud800"}', "not JSON in UTF-8"),
        (b'{"a": 1}\0', "not JSON in UTF-8"),
        ('{"a": "\ud800"}', "not JSON in UTF-8"),
        (b" " * MAX_JSON_BYTES + b"{}", "has more than 1048576 bytes, expected a small file of JSON"),
        (b"3", "expected a JSON object, got int"),
    ],
)
def test_what_is_no_json_of_ours(text: str | bytes, message: str) -> None:
    with pytest.raises(EngineError, match=f"^it: {message}"):
        parse_json(text, "it", EngineError)


def test_of_a_huge_file_little_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(EngineError, match="^it: has more than 1048576 bytes"):
        read_json(tmp_path / "huge.json", "it", EngineError)
    with pytest.raises(EngineError, match="^it: cannot be read: Is a directory"):
        read_json(tmp_path, "it", EngineError)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "missing.json", "it", EngineError)


@dataclasses.dataclass(frozen=True)
class Inner:
    number: int


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner | None


def test_an_optional_object_has_no_unknown_keys() -> None:
    assert convert({"inner": {"number": 1}}, Outer, "it", EngineError) == Outer(Inner(1))
    assert convert({"inner": None}, Outer, "it", EngineError) == Outer(None)
    with pytest.raises(EngineError, match=r"inner: unknown keys \['more'\]"):
        convert({"inner": {"number": 1, "more": 2}}, Outer, "it", EngineError)
