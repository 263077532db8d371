"""How a graph was exported, and a seal that shows whether its file has been changed since.

Both are entries of the model's metadata beside the contract, and so is the range table of an INT8 graph. The seal is a
SHA-256 over the whole file with zeros in its own place. It guards against mistakes, not against somebody who makes a
new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re

from cisi_runtime.errors import ContractError
from cisi_runtime.strict_json import check_revision, convert, parse_json

RECORD_KEY, RANGES_KEY, SEAL_KEY = "cisi_export", "cisi_ranges", "cisi_sha256"
EMPTY_SEAL = "0" * 64
REVISION = 1
# A metadata entry as protocol buffers write it: field 1 is the key, field 2 the value, each behind its length.
_SEAL = re.compile(rb"\x0a\x0b" + SEAL_KEY.encode() + rb"\x12\x40([0-9a-f]{64})")


@dataclasses.dataclass(frozen=True)
class ExportRecord:
    """How a graph was exported.

    versions: of the packages that decide what a graph looks like, by name.
    golden_sha256: of its golden cases; see `Golden.sha256`.
    kept_float: convolutions that an INT8 graph keeps in float.
    reduce_range: its weights have 7 bits.
    """

    versions: dict[str, str]
    golden_sha256: str
    kept_float: tuple[str, ...] = ()
    reduce_range: bool = False
    revision: int = REVISION

    def to_json(self) -> str:
        """One line of JSON with sorted keys: the same record gives the same bytes."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ExportRecord:
        """Read and check. Raises ContractError."""
        what = "export record"
        values = parse_json(text, what, ContractError)
        check_revision(values, REVISION, what, ContractError)
        return convert(values, cls, what, ContractError)


def seal(model: bytes) -> bytes:
    """A serialised model with its seal in place of `EMPTY_SEAL`, which stands in its metadata under `SEAL_KEY`."""
    (place,) = _SEAL.finditer(model)
    return model[: place.start(1)] + _digest(model, place) + model[place.end(1) :]


def is_sealed(model: bytes) -> bool:
    """Whether a file is, byte for byte, as it was sealed."""
    places = list(_SEAL.finditer(model))
    return len(places) == 1 and places[0][1] == _digest(model, places[0])


def _digest(model: bytes, place: re.Match[bytes]) -> bytes:
    digest = hashlib.sha256(model[: place.start(1)])
    digest.update(EMPTY_SEAL.encode())
    digest.update(model[place.end(1) :])
    return digest.hexdigest().encode()
