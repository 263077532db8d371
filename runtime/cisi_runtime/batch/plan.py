"""The photographs of a run, in a database that may be larger than the memory.

A run may have millions of photographs. Their names, and those of masks and results that exist, go into a database of
SQLite's that has no name: it lies in memory while it is small, in a temporary file when it has grown, and is gone when
it is closed. So neither the order nor the length of a listing matters.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

from cisi_runtime.batch.job import Job

# What SQLite keeps in memory, in KiB.
_CACHE_KIB = 65536
_PENDING, _EXISTING, _REFUSED = range(3)
_TABLES = """
CREATE TABLE masks (key BLOB, name BLOB, PRIMARY KEY (key, name)) WITHOUT ROWID;
CREATE TABLE results (name BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE originals (address BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE jobs (image BLOB, mask BLOB, output BLOB, state INTEGER, reason BLOB);
CREATE TEMP TABLE page (image BLOB, key BLOB, output BLOB);
"""
# A photograph of the page with the number of its masks, and whether its result exists.
_WITH_MASKS = f"""
INSERT INTO jobs SELECT image, mask, output,
    CASE WHEN found <> 1 THEN {_REFUSED} WHEN output IN results THEN {_EXISTING} ELSE {_PENDING} END,
    CASE WHEN found <> 1 THEN CAST(found || coalesce(': ' || every, '') AS BLOB) END
FROM (SELECT image, output,
    (SELECT count(*) FROM masks WHERE masks.key = page.key) AS found,
    (SELECT min(name) FROM masks WHERE masks.key = page.key) AS mask,
    (SELECT group_concat(name, ', ') FROM masks WHERE masks.key = page.key) AS every FROM page)
"""
_WITHOUT = f"INSERT INTO jobs VALUES (?1, ?2, ?3, CASE WHEN ?3 IN results THEN {_EXISTING} ELSE {_PENDING} END, NULL)"


class Names(NamedTuple):
    """A photograph, its mask and its result, as they are called in a plan. mask: None where there is none, or where one
    mask serves all."""

    image: str
    mask: str | None
    output: str


class Plan:
    """What a run has to do. As a context manager it closes its database.

    job: makes a job of the names in this plan.
    refusal: says why a photograph is refused, from its names and the reason that was kept.
    """

    def __init__(self, job: Callable[[Names], Job], refusal: Callable[[Names, str], str]) -> None:
        self._job, self._refusal = job, refusal
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            f"PRAGMA cache_size = -{_CACHE_KIB}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES} BEGIN;"
        )

    def add_masks(self, masks: Iterable[tuple[str, str]]) -> None:
        """Masks by the key of the photographs that they belong to."""
        rows = ((_bytes(key), _bytes(name)) for key, name in masks)
        self._database.executemany("INSERT OR IGNORE INTO masks VALUES (?, ?)", rows)

    def add_results(self, names: Iterable[str]) -> None:
        """Results that exist. Photographs that are added later are not done again."""
        self._database.executemany("INSERT OR IGNORE INTO results VALUES (?)", ((_bytes(name),) for name in names))

    def add(self, photographs: Iterable[Names]) -> None:
        """Photographs whose masks are known."""
        rows = ((_bytes(image), mask and _bytes(mask), _bytes(output)) for image, mask, output in photographs)
        self._database.executemany(_WITHOUT, rows)

    def add_by_key(self, photographs: Iterable[tuple[str, str, str]]) -> None:
        """Photographs as image, key and output. Those whose key has no mask, or several, are refused; the reason is the
        number of masks, and their names."""
        rows = (tuple(map(_bytes, names)) for names in photographs)
        self._database.executemany("INSERT INTO page VALUES (?, ?, ?)", rows)
        self._database.execute(_WITH_MASKS)
        self._database.execute("DELETE FROM page")

    def refuse(self, photographs: Iterable[Names], reason: str) -> None:
        """Photographs that cannot be done."""
        rows = (
            (_bytes(image), mask and _bytes(mask), _bytes(output), _bytes(reason))
            for image, mask, output in photographs
        )
        self._database.executemany(f"INSERT INTO jobs VALUES (?, ?, ?, {_REFUSED}, ?)", rows)

    def add_originals(self, addresses: Iterable[str]) -> None:
        """What must not be written over."""
        rows = ((_bytes(address),) for address in addresses)
        self._database.executemany("INSERT OR IGNORE INTO originals VALUES (?)", rows)

    def first_original_written_over(self, folder: str) -> str | None:
        """The output of a photograph that would be written over an original, where outputs lie in a folder."""
        row = self._database.execute(
            "SELECT output FROM jobs WHERE CAST(? || output AS BLOB) IN originals LIMIT 1",
            (_bytes(f"{folder.rstrip('/')}/"),),
        ).fetchone()
        return None if row is None else _text(row[0])

    def is_original(self, address: str) -> bool:
        """Whether it is one of `add_originals`."""
        return bool(self._database.execute("SELECT ? IN originals", (_bytes(address),)).fetchone()[0])

    def first_repeated_output(self) -> str | None:
        """An output that two photographs have."""
        row = self._database.execute("SELECT output FROM jobs GROUP BY output HAVING count(*) > 1 LIMIT 1").fetchone()
        return None if row is None else _text(row[0])

    @property
    def pending(self) -> int:
        """Number of photographs to do."""
        return self._count(_PENDING)

    @property
    def existing(self) -> int:
        """Number of photographs whose results exist."""
        return self._count(_EXISTING)

    def has_results(self, folder: str) -> bool:
        """Whether a folder has results (`add_results`), of these photographs or of others, and not originals alone."""
        return self._first_result(folder, "") is not None

    def has_results_of_others(self, folder: str) -> bool:
        """Whether a folder has results of photographs that are not in this plan."""
        return self._first_result(folder, "AND name NOT IN (SELECT output FROM jobs)") is not None

    def _first_result(self, folder: str, condition: str) -> tuple[int] | None:
        query = f"SELECT 1 FROM results WHERE CAST(? || name AS BLOB) NOT IN originals {condition} LIMIT 1"
        row: tuple[int] | None = self._database.execute(query, (_bytes(f"{folder.rstrip('/')}/"),)).fetchone()
        return row

    @property
    def is_empty(self) -> bool:
        """Whether no photograph was found."""
        return self._database.execute("SELECT 1 FROM jobs LIMIT 1").fetchone() is None

    def jobs(self) -> Iterator[Job]:
        """Those to do, in the order in which they were found."""
        for names, _ in self._rows(_PENDING):
            yield self._job(names)

    def refusals(self) -> Iterator[tuple[Job, str]]:
        """Those that cannot be done, and why."""
        for names, reason in self._rows(_REFUSED):
            yield self._job(names), self._refusal(names, reason)

    def close(self) -> None:
        """Give the database's memory and file back."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _rows(self, state: int) -> Iterator[tuple[Names, str]]:
        query = "SELECT image, mask, output, reason FROM jobs WHERE state = ? ORDER BY rowid"
        for image, mask, output, reason in self._database.execute(query, (state,)):
            yield Names(_text(image), mask and _text(mask), _text(output)), reason and _text(reason)

    def _count(self, state: int) -> int:
        return int(self._database.execute("SELECT count(*) FROM jobs WHERE state = ?", (state,)).fetchone()[0])


def _bytes(name: str) -> bytes:
    """A name as it is kept. Names of files need not be UTF-8, and SQLite's text must be."""
    return name.encode(errors="surrogateescape")


def _text(kept: bytes) -> str:
    return kept.decode(errors="surrogateescape")
