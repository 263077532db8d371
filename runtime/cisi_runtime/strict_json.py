"""JSON from outside, read into dataclasses: every key known, every value of the declared type and range.

msgspec checks types and ranges (`typing.Annotated[int, msgspec.Meta(ge=0)]`). It ignores unknown keys of a dataclass
and fills in missing ones from defaults, so both are checked here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from cisi_runtime.errors import CisiError

T = TypeVar("T")


def parse_json(text: str, what: str, error_type: type[CisiError]) -> dict[str, Any]:
    """A JSON object as a dictionary. Raises `error_type` for anything else; `what` begins its message."""
    try:
        values = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise error_type(f"{what}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise error_type(f"{what}: expected a JSON object, got {type(values).__name__}")
    return values


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
    else:
        return []
    return [fault for item in items for fault in _nested_faults(*item)]
