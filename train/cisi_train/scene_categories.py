"""The pictures of some scene categories of Places365-Standard, in its folder layouts and by its lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cisi_runtime.errors import DataError

# Places365's own lists: the number of each picture's category, and the name of each number.
_INDEX, _NAMES = "places365_val.txt", "categories_places365.txt"


def listed(_context: object, _parameter: object, value: str | None) -> str | None:
    """For click: names between commas, without the spaces around them."""
    return ",".join(name.strip() for name in value.split(",")) if value else None


def of_categories(folder: Path, paths: Sequence[Path], categories: Sequence[str]) -> list[Path]:
    """The pictures of some scene categories, in any layout of Places365-Standard.

    A picture is of category `field` when a folder above it (below `folder`) is called `field` or `field-...`. That fits
    `train/field-wild/1.jpg` and `data_256/f/field/wild/1.jpg`. Pictures named in a `places365_val.txt`, in `folder` or
    above it, have the category that this list and the `categories_places365.txt` beside it give them. Raises DataError
    for a category without a picture.
    """
    listed = _listed_categories(folder)
    by_category: dict[str, list[Path]] = {name: [] for name in categories}
    for path in paths:
        names = [*path.relative_to(folder).parts[:-1], *listed.get(path.name, ())]
        for category in categories:
            if any(name == category or name.startswith(f"{category}-") for name in names):
                by_category[category].append(path)
    empty = [name for name, members in by_category.items() if not members]
    if empty:
        raise DataError(
            f"{folder}: no pictures of category {', '.join(empty)}, expected folders of these names, or {_INDEX} and "
            f"{_NAMES} in this folder or above it"
        )
    return sorted({path for members in by_category.values() for path in members})


def _listed_categories(folder: Path) -> dict[str, tuple[str, ...]]:
    """Parts of the category name (`field`, `wild`) by file name, from Places365's own lists."""
    for parent in (folder, *folder.resolve().parents):
        index, names = parent / _INDEX, parent / _NAMES
        if index.is_file() and names.is_file():
            by_number = {number: name for name, number in _pairs(names)}
            try:
                return {file: tuple(by_number[number].strip("/").split("/")) for file, number in _pairs(index)}
            except KeyError as error:
                raise DataError(f"{index}: names category {error.args[0]}, which {names} does not have") from error
    return {}


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a list with two columns. Raises DataError for a line with another number of columns."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        parts = line.split()
        if parts and len(parts) != 2:
            raise DataError(f"{path}: line {number} is {line!r}, expected a name and a number")
        if parts:
            yield parts[0], parts[1]
