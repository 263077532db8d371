"""JSON from outside, read into dataclasses: every key known, every value of the declared type and range.

msgspec checks types and ranges (`typing.Annotated[int, msgspec.Meta(ge=0)]`). It ignores unknown keys of a dataclass,
fills in missing ones from defaults and takes the last of equal keys, so these are checked here.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from cisi_runtime.errors import CisiError

T = TypeVar("T")

# The largest file of ours has some 10 kB: a line for each of a hundred tensors.
MAX_JSON_BYTES = 1 << 20


def read_json(path: Path, what: str, error_type: type[CisiError]) -> dict[str, Any]:
    """As `parse_json`, from a file of at most `MAX_JSON_BYTES`; of a larger one no more than that is read.

    Raises FileNotFoundError too.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise error_type(f"{what}: cannot be read: {error.strerror or error}") from error
    return parse_json(data, what, error_type)


def parse_json(text: str | bytes, what: str, error_type: type[CisiError]) -> dict[str, Any]:
    """A JSON object as a dictionary; bytes are UTF-8. Raises `error_type` for anything else, for two equal keys in one
    object and for more than `MAX_JSON_BYTES`; `what` begins its message."""
    if len(text) > MAX_JSON_BYTES:
        raise error_type(f"{what}: has more than {MAX_JSON_BYTES} bytes, expected a small file of JSON")
    try:
        values = msgspec.json.decode(text)
        repeated: list[str] = []
        json.loads(text, object_pairs_hook=lambda pairs: _note_repeated(pairs, repeated))
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise error_type(f"{what}: not JSON in UTF-8: {error}") from error
    if repeated:
        raise error_type(f"{what}: the key {repeated[0]!r} is there twice, expected it once")
    if not isinstance(values, dict):
        raise error_type(f"{what}: expected a JSON object, got {type(values).__name__}")
    return values


def _note_repeated(pairs: list[tuple[str, Any]], repeated: list[str]) -> None:
    """Of an object's keys, note those that have been there before."""
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            repeated.append(key)
        seen.add(key)


def check_revision(values: Mapping[str, Any], newest: int, what: str, error_type: type[CisiError]) -> None:
    """Raise `error_type` unless `values["revision"]` is a whole number from 1 to `newest`."""
    revision = values.get("revision")
    if type(revision) is not int or revision < 1:
        raise error_type(f"{what}: expected a JSON object with a revision number")
    if revision > newest:
        raise error_type(
            f"{what}: revision {revision} is newer than {newest}, the newest known here; install a newer cisi-net"
        )


def convert(values: object, kind: type[T], what: str, error_type: type[CisiError]) -> T:
    """A dataclass from the dictionary that `dataclasses.asdict` made of one, nested dataclasses and tuples included.

    Raises `error_type` for unknown keys, missing keys, and values of another type or outside their range. What the
    dataclass itself raises goes through.
    """
    faults = key_faults(values, kind)
    if faults:
        raise error_type(f"{what}: {'; '.join(faults)}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise error_type(f"{what}: a value is of the wrong kind: {error}") from error


def key_faults(values: object, kind: type, path: str = "") -> list[str]:
    """Unknown and missing keys of a dictionary against a dataclass, and against the dataclasses within it."""
    if not isinstance(values, dict):
        return [f"{path or 'value'}: expected an object, got {type(values).__name__}"]
    expected = {field.name for field in dataclasses.fields(kind)}
    present = set(values)
    faults = []
    if present != expected:
        unknown, missing = sorted(map(str, present - expected)), sorted(expected - present)
        faults.append(f"{path + ': ' if path else ''}unknown keys {unknown}, missing keys {missing}")
    hints = get_type_hints(kind)
    for name in sorted(expected & present):
        faults += _nested_faults(values[name], hints[name], f"{path}.{name}" if path else name)
    return faults


def _nested_faults(value: object, hint: Any, path: str) -> list[str]:
    """As `key_faults`, for a value whose declared type is or contains a dataclass."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return key_faults(value, hint, path)
    arguments = get_args(hint)
    if get_origin(hint) is tuple and arguments[-1] is Ellipsis and isinstance(value, list | tuple):
        items = [(item, arguments[0], f"{path}[{number}]") for number, item in enumerate(value)]
    elif get_origin(hint) is dict and isinstance(value, dict):
        items = [(item, arguments[1], f"{path}[{key!r}]") for key, item in value.items()]
    elif get_origin(hint) in (Union, UnionType) and isinstance(value, dict):
        items = [(value, argument, path) for argument in arguments if dataclasses.is_dataclass(argument)]
    else:
        return []
    return [fault for item in items for fault in _nested_faults(*item)]
