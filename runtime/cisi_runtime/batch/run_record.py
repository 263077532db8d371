"""What made the results of a folder, so that another run does not take them for its own.

A run skips results that exist. With another network, mask or option they would be others, so what they were made with
lies beside them, in `.cisi-run.json`.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from cisi_runtime.errors import OutputError, PictureError
from cisi_runtime.storage.access import read_address, write_address
from cisi_runtime.storage.addresses import Address
from cisi_runtime.strict_json import check_revision, convert, parse_json, read_json

RECORD = ".cisi-run.json"
_REVISION = 1


@dataclasses.dataclass(frozen=True)
class _Entry:
    """made_with: the values of options, by their names. is_mixed: some results were made with others."""

    made_with: dict[str, str]
    is_mixed: bool = False
    revision: int = _REVISION


def recorded_options(output: Address) -> dict[str, str]:
    """What the results of a folder were made with, by the names of options. Empty where nothing is recorded.

    Raises OutputError for a record that cannot be read; StorageError.
    """
    before = RunRecord(output, {})._read()
    return {} if before is None else before.made_with


class RunRecord:
    """What a run makes its results with.

    output: folder of the results. made_with: the values of options, by their names.
    replaces_others: since `check`, whether there may be results that were made with other options.
    """

    def __init__(self, output: Address, made_with: dict[str, str]) -> None:
        self._address, self._output, self._entry = output / RECORD, output, _Entry(made_with)
        self.replaces_others = self._is_written = False

    def check(self, *, has_results: bool, overwrite: bool) -> None:
        """Before a run.

        has_results: there are results, of this run's photographs or of others. overwrite: this run's are made anew;
            until `finish`, the folder may have both kinds.

        Raises OutputError where the results there were made with other options, or are of two kinds; StorageError.
        """
        before = self._read()
        self._is_written = before == self._entry
        if before is None or self._is_written:
            return
        if has_results:
            raise OutputError(f"{self._output}: {self._difference(before)}, expected --overwrite, or another folder")
        self.replaces_others = overwrite

    def begin(self) -> None:
        """Write it, once there has been a `check`. This comes just before the first result: a run that ends before, for
        want of a device or a cluster, leaves the folder as it was. Raises StorageError."""
        if not self._is_written:
            self._write(dataclasses.replace(self._entry, is_mixed=self.replaces_others))
            self._is_written = True

    def finish(self) -> None:
        """No result of another kind is left."""
        if self.replaces_others:
            self._write(self._entry)

    def _read(self) -> _Entry | None:
        name = str(self._address)
        try:
            if isinstance(self._address, Path):
                values = read_json(self._address, name, OutputError)
            else:
                values = parse_json(read_address(self._address), name, OutputError)
        except (FileNotFoundError, PictureError):  # it is not there
            return None
        check_revision(values, _REVISION, name, OutputError)
        return convert(values, _Entry, name, OutputError)

    def _difference(self, before: _Entry) -> str:
        if before.is_mixed:
            return "some of its results were made with other options, and not replaced by the run that followed"
        then, now = before.made_with, self._entry.made_with
        changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
        differences = [f"{name} was {_shown(then.get(name))}, now {_shown(now.get(name))}" for name in changed]
        return f"its results were made otherwise: {'; '.join(differences)}"

    def _write(self, entry: _Entry) -> None:
        write_address(self._address, json.dumps(dataclasses.asdict(entry), indent=1).encode() + b"\n")


def _shown(value: str | None) -> str:
    return {None: "not given", "False": "not given", "True": "given"}.get(value, str(value))
