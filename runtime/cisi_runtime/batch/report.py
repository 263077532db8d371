"""What became of the photographs of a run, and the list of those that failed."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cisi_runtime.batch.job import LARGE_HOLE, Job, JobSummary
from cisi_runtime.errors import CisiError, OutputError, PictureError
from cisi_runtime.files import atomic_file
from cisi_runtime.storage.access import read_address, remove_address, write_address
from cisi_runtime.storage.addresses import Address

# In the folder of the results, after failures: a JSON object a line, with `image`, `mask`, `output` and `reason`.
FAILURES = "failures.jsonl"
# What SQLite keeps of it in memory, in KiB; the rest goes into a temporary file.
_CACHE_KIB = 1024


class RunReport:
    """Counts of a run, and its failures. As a context manager it closes the database that holds them.

    output: folder of the results.
    existing: results that were there before.
    written: number of results written.
    without_hole: number of photographs without a hole. with_large_hole: number of those that are mostly hole.
    failed: number of photographs that failed, each once. One that is done later has not failed.
    largest_change: largest change of a known pixel, in grey levels, and the name of the result that has it.
    """

    def __init__(self, output: Address, existing: int) -> None:
        self.output, self.existing = output, existing
        self.written = self.without_hole = self.with_large_hole = self.failed = 0
        self.largest_change = (0, "")
        self._failures = sqlite3.connect("", isolation_level=None)
        self._failures.executescript(
            f"PRAGMA cache_size = -{_CACHE_KIB}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE failures (image BLOB, output BLOB, entry BLOB, UNIQUE (image, output)); BEGIN;"
        )

    def add(self, job: Job, result: JobSummary | CisiError) -> str | None:
        """Take in a photograph. Returns the line that says why it failed."""
        if isinstance(result, CisiError):
            return self.add_failure(job, str(result) if str(job.image) in str(result) else f"{job.image}: {result}")
        self._forget(job)
        self.written += 1
        self.without_hole += result.hole_fraction == 0
        self.with_large_hole += result.hole_fraction > LARGE_HOLE
        self.largest_change = max(self.largest_change, (result.change, str(job.output)))
        return None

    def add_failure(self, job: Job, reason: str) -> str:
        """Take in a photograph that failed. Returns the reason."""
        self._forget(job)
        self.failed += 1
        mask = None if job.mask is None else str(job.mask)
        entry = {"image": str(job.image), "mask": mask, "output": str(job.output), "reason": reason}
        # Names of files need not be UTF-8, and JSON must be.
        is_utf8 = not any("\udc80" <= character <= "\udcff" for text in entry.values() if text for character in text)
        line = json.dumps(entry, ensure_ascii=not is_utf8).encode()
        self._failures.execute("INSERT INTO failures VALUES (?, ?, ?)", (*_names(job), line))
        return reason

    def write_failures(self) -> None:
        """Write the list beside the results, or remove that of an earlier run when nothing failed. Raises OutputError,
        StorageError."""
        address = self.output / FAILURES
        if self.failed:
            lines = (line + b"\n" for (line,) in self._failures.execute("SELECT entry FROM failures ORDER BY rowid"))
            if isinstance(address, Path):
                with atomic_file(address) as temporary, temporary.open("wb") as file:
                    file.writelines(lines)
            else:
                write_address(address, b"".join(lines))
        else:
            remove_address(address)

    def as_json(self) -> dict[str, Any]:
        """Counts by name. largest_change: in grey levels of 255, and the result that has it."""
        change, name = self.largest_change
        return {
            "output": str(self.output),
            "written": self.written,
            "existing": self.existing,
            "without_hole": self.without_hole,
            "with_large_hole": self.with_large_hole,
            "failed": self.failed,
            "failures": str(self.output / FAILURES) if self.failed else None,
            "largest_change": {"levels": change, "output": name} if change else None,
        }

    def lines(self) -> list[str]:
        """Counts, for people."""
        lines = [f"{self.output}: {self.written} written, {self.existing} there already, {self.failed} failed"]
        if self.without_hole:
            lines.append(f"{self.without_hole} of them without a hole: copied, or converted")
        change, name = self.largest_change
        if change:
            lines.append(f"known pixels changed by at most {change} of 255, by a lossy format ({name})")
        return lines

    def _forget(self, job: Job) -> None:
        """A photograph that is watched may have failed before."""
        if self.failed:
            # Two names in a store can be one path of this machine, so the output alone does not tell them apart.
            query = "DELETE FROM failures WHERE image = ? AND output = ?"
            self.failed -= self._failures.execute(query, _names(job)).rowcount

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._failures.close()


def check_failures(output: Address) -> None:
    """Raise OutputError where something else has the name of the list."""
    address = output / FAILURES
    if isinstance(address, Path) and not address.exists():
        return
    try:
        first = read_address(address).partition(b"\n")[0]
        is_ours = list(json.loads(first)) == ["image", "mask", "output", "reason"]
    except PictureError:
        is_ours = not isinstance(address, Path)  # it is not there, or no file
    except (ValueError, TypeError):
        is_ours = False
    if not is_ours:
        raise OutputError(f"{address}: is no list of this command's; move it, the run would write over it")


def _names(job: Job) -> tuple[bytes, bytes]:
    return os.fsencode(str(job.image)), os.fsencode(str(job.output))
