"""A table of photographs as the list of what a run has to do."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from cisi_runtime.batch.folder import add_results
from cisi_runtime.batch.job import Job
from cisi_runtime.batch.plan import Names, Plan
from cisi_runtime.errors import DataError, OutputError, PictureError, error_prefix
from cisi_runtime.pictures.writing import format_of
from cisi_runtime.storage.access import make_writable_folder, read_address
from cisi_runtime.storage.addresses import Address, identity, name_below, parse_address

_COLUMNS = ("image", "mask", "output")
# Rows that are worked on at a time.
_PAGE = 1000


def plan_manifest(
    manifest: Address, mask: Address | None, output: Address, *, from_alpha: bool = False, overwrite: bool = False
) -> Plan:
    """A plan of the photographs in a table: CSV with a line of names first, or Parquet.

    Columns: `image` and `mask`, paths or addresses, relative ones to the table's folder; `output`, a name below the
    output folder. Where the column `mask` is empty or missing, `mask` serves, or what is transparent (from_alpha).
    output: the folder of the results. overwrite: photographs whose results exist are done again.

    Raises DataError for a table that is damaged or incomplete, or has an output twice; OutputError for an output that
    is an original or does not lie in the folder; StorageError.
    """
    base = manifest.parent if isinstance(manifest, Path) else manifest.folder

    def job(names: Names) -> Job:
        known = mask if names.mask is None else parse_address(names.mask)
        return Job(parse_address(names.image), known, output / names.output)

    make_writable_folder(output)
    plan = Plan(job, lambda names, reason: f"{names.image}: {reason}")
    try:
        if not overwrite:
            add_results(plan, output)
        rows = _rows(manifest, needs_mask=mask is None and not from_alpha)
        while page := list(itertools.islice(rows, _PAGE)):
            absolute = [_absolute(row, base, output, manifest) for row in page]
            plan.add(names for names, _ in absolute)
            plan.add_originals(original for _, originals in absolute for original in originals)
        if plan.is_empty:
            raise DataError(f"{manifest}: has no photographs")
        if (repeated := plan.first_repeated_output()) is not None:
            raise DataError(f"{manifest}: the output {repeated} is there twice, expected one for each photograph")
        if (original := plan.first_original_written_over(identity(output))) is not None:
            raise OutputError(f"{output / original}: is an original of {manifest}, expected another output")
    except BaseException:
        plan.close()
        raise
    return plan


def _absolute(row: dict[str, str], base: Address, output: Address, manifest: Address) -> tuple[Names, list[str]]:
    """The names of a row, and what must not be written over."""
    originals = [_below(base, row[column]) for column in ("image", "mask") if row.get(column)]
    name = row["output"]
    if "://" in name or name.startswith("/"):
        below = name_below(parse_address(name), output)
        if not below:
            raise OutputError(f"{manifest}: output {name} does not lie in {output}")
        name = below
    # A hidden result would not be found by the next run.
    if "\0" in name or any(not part or part.startswith(".") for part in name.split("/")):
        raise OutputError(f"{manifest}: output {name!r}, expected a name below {output}, without hidden parts")
    with error_prefix(str(manifest)):
        format_of(name)
    names = Names(str(originals[0]), str(originals[1]) if len(originals) > 1 else None, name)
    return names, [identity(address) for address in originals]


def _below(base: Address, text: str) -> Address:
    address = parse_address(text)
    if not isinstance(address, Path) or address.is_absolute():
        return address
    return (base / text).absolute() if isinstance(base, Path) else base / text


def _rows(manifest: Address, *, needs_mask: bool) -> Iterator[dict[str, str]]:
    suffix = Path(str(manifest)).suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise DataError(f"{manifest}: expected a table that ends with .csv or .parquet")
    try:
        data = read_address(manifest)
    except PictureError as error:
        raise DataError(str(error)) from error
    required = _COLUMNS if needs_mask else ("image", "output")
    rows = _csv_rows(data, manifest) if suffix == ".csv" else _parquet_rows(data, manifest)
    for number, row in enumerate(rows, 1):
        missing = [column for column in required if not row.get(column)]
        if missing:
            raise DataError(
                f"{manifest}: row {number} has no {', '.join(missing)}, expected columns {', '.join(required)}"
            )
        yield {column: row[column] for column in _COLUMNS if row.get(column)}


def _csv_rows(data: bytes, manifest: Address) -> Iterator[dict[str, str]]:
    try:
        # With or without a byte order mark, as spreadsheets write it.
        rows = csv.DictReader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline=""), strict=True)
        columns = list(rows.fieldnames or ())
        if repeated := [column for column in _COLUMNS if columns.count(column) > 1]:
            raise DataError(f"{manifest}: has the column {repeated[0]} twice, expected it once")
        yield from rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{manifest}: is not a CSV table in UTF-8: {error}") from error


def _parquet_rows(data: bytes, manifest: Address) -> Iterator[dict[str, str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data))
        columns = [column for column in _COLUMNS if column in table.schema_arrow.names]
        for batch in table.iter_batches(_PAGE, columns=columns):
            for row in batch.to_pylist():
                yield {column: value if isinstance(value, str) else "" for column, value in row.items()}
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        # Damaged pages are an OSError, damaged texts and names of columns a UnicodeDecodeError.
        raise DataError(f"{manifest}: is not a Parquet table: {' '.join(str(error).split())}") from error
