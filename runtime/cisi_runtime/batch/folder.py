"""A folder of photographs, or several: which mask belongs to which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from cisi_runtime.batch.job import Job
from cisi_runtime.batch.plan import Names, Plan
from cisi_runtime.errors import DataError, OutputError
from cisi_runtime.pictures.picture import SUFFIXES
from cisi_runtime.storage.access import find_names, is_folder, is_same, make_writable_folder
from cisi_runtime.storage.addresses import Address, name_below

# A mask has its photograph's name, or that name with this before the suffix.
_MASK_ENDING = ".mask"
# Why a photograph is refused whose result would lie among photographs or masks, because their folder is in the output.
_ORIGINAL = "which is in a folder of originals: an original is kept"
# Why one is refused whose name in a store, `/a.png` or `a//b.png`, would be another file on this machine.
_NO_NAME = "its name has an empty part, which no path of this machine has"


def plan_folder(
    photographs: Address, masks: Address | None, output: Address, *, overwrite: bool = False, may_be_empty: bool = False
) -> Plan:
    """A plan of every photograph below a folder, with results of the same names below `output`. Makes that folder, and
    tries whether it takes files.

    masks: a folder, one file for all photographs, or None. In a folder the mask of `a/b.jpg` is `a/b` or `a/b.mask`
        with any picture suffix; where it is the folder of the photographs, only the latter.
    overwrite: photographs whose results exist are done again.
    may_be_empty: a folder without photographs is no error.

    Raises DataError for a folder without photographs, OutputError for an output folder that holds originals,
    StorageError.
    """
    mask_folder = masks if masks is not None and is_folder(masks) else None
    _check_folders(photographs, mask_folder, output)

    def job(names: Names) -> Job:
        mask = masks if mask_folder is None or names.mask is None else mask_folder / names.mask
        return Job(photographs / names.image, mask, output / names.output)

    def refusal(names: Names, reason: str) -> str:
        if reason == _ORIGINAL:
            return f"{photographs / names.image}: its result would be {output / names.output}, {_ORIGINAL}"
        if reason == _NO_NAME:
            return f"{photographs / names.image}: {reason}"
        return f"{photographs / names.image}: {_expected_mask(mask_folder, names.image, reason)}"

    if not isinstance(output, Path):
        make_writable_folder(output)  # listing may take long
    plan = Plan(job, refusal)
    try:
        mask_name = name_below(masks, photographs) if masks is not None and mask_folder is None else None
        _fill(plan, photographs, mask_folder, output, overwrite=overwrite, left_out=mask_name)
        if plan.is_empty and not may_be_empty:
            raise DataError(f"{photographs}: no photographs found")
        if isinstance(output, Path):
            make_writable_folder(output)
    except BaseException:
        plan.close()
        raise
    return plan


def plan_files(
    photographs: Sequence[Address], masks: Address | None, output: Address, *, overwrite: bool = False
) -> Plan:
    """A plan of these photographs, with results of the same names in `output`. Otherwise as `plan_folder`.

    masks: a folder, in which the mask of `x/b.jpg` is `b` or `b.mask` with any picture suffix, one file for all, or
        None.

    Raises DataError where two photographs have one name, OutputError for an output folder that holds one of them.
    """
    mask_folder = masks if masks is not None and is_folder(masks) else None
    by_name = {address.name: address for address in photographs}
    if len(by_name) < len(photographs):
        (name, _), *_ = Counter(address.name for address in photographs).most_common(1)
        raise DataError(f"{name}: is the name of two photographs, expected one of each, as results have their names")

    def job(names: Names) -> Job:
        mask = masks if mask_folder is None or names.mask is None else mask_folder / names.mask
        return Job(by_name[names.image], mask, output / names.output)

    def refusal(names: Names, reason: str) -> str:
        return f"{by_name[names.image]}: {_expected_mask(mask_folder, names.image, reason)}"

    for address in photographs:
        folder = address.parent if isinstance(address, Path) else address.folder
        _check_folders(folder, mask_folder, output)
    plan = Plan(job, refusal)
    try:
        for page in _pictures(mask_folder) if mask_folder is not None else ():
            plan.add_masks(pair for name in page for pair in _keys(name, only_marked=False))
        if not overwrite:
            add_results(plan, output, mask_folder)
        if mask_folder is None:
            plan.add(Names(name, None, name) for name in by_name)
        else:
            plan.add_by_key((name, _key(name), name) for name in by_name)
        make_writable_folder(output)
    except BaseException:
        plan.close()
        raise
    return plan


def _expected_mask(mask_folder: Address | None, image: str, reason: str) -> str:
    """What was expected of the masks, where a plan found none or several."""
    number, _, several = reason.partition(": ")
    found = f"{number}: {several}" if several else f"none; its name would be {PurePosixPath(image).stem}.mask.png"
    return f"expected one mask of this name in {mask_folder}, found {found}"


def _fill(
    plan: Plan,
    photographs: Address,
    mask_folder: Address | None,
    output: Address,
    *,
    overwrite: bool,
    left_out: str | None,
) -> None:
    """left_out: what lies among the photographs and is none: the mask of all of them."""
    is_mixed = mask_folder is not None and is_same(mask_folder, photographs)
    if mask_folder is not None:
        results = _folders_inside(mask_folder, output)
        for page in _pictures(mask_folder):
            names = [name for name in page if not name.startswith(results)] if results else page
            plan.add_masks(pair for name in names for pair in _keys(name, only_marked=is_mixed))
    if not overwrite:
        add_results(plan, output, photographs, mask_folder)
    inside = _folders_inside(photographs, output, None if is_mixed else mask_folder)
    originals = [name for folder in (photographs, mask_folder) if folder and (name := name_below(folder, output))]
    for page in _pictures(photographs):
        names = [name for name in page if not name.startswith(inside)] if inside else page
        if left_out is not None:
            names = [name for name in names if name != left_out]
        if is_mixed:
            names = [name for name in names if not _key(name).endswith(_MASK_ENDING)]
        if isinstance(output, Path):
            plan.refuse((Names(name, None, name) for name in names if "//" in f"/{name}"), _NO_NAME)
            names = [name for name in names if "//" not in f"/{name}"]
        if originals:
            kept = tuple(f"{folder}/" for folder in originals)
            plan.refuse((Names(name, None, name) for name in names if name.startswith(kept)), _ORIGINAL)
            names = [name for name in names if not name.startswith(kept)]
        if mask_folder is None:
            plan.add(Names(name, None, name) for name in names)
        else:
            plan.add_by_key((name, _key(name), name) for name in names)


def add_results(plan: Plan, output: Address, *originals: Address | None) -> None:
    """Tell a plan which results exist in a folder. originals: folders that have none, and may lie in it."""
    kept = tuple(f"{name}/" for folder in originals if folder is not None and (name := name_below(folder, output)))
    if not isinstance(output, Path) or output.exists():
        for page in _pictures(output):
            plan.add_results(name for name in page if not name.startswith(kept))


def _check_folders(photographs: Address, mask_folder: Address | None, output: Address) -> None:
    if isinstance(output, Path) and output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file, expected a folder, as {photographs} is one")
    for folder, what in ((photographs, "photographs"), (mask_folder, "masks")):
        if folder is not None and is_same(output, folder):
            raise OutputError(f"{output}: is the folder of the {what}, expected another: an original is kept")


def _folders_inside(photographs: Address, *folders: Address | None) -> tuple[str, ...]:
    """What the names of files begin with that lie in the folder of photographs and are none."""
    names = [name_below(folder, photographs) for folder in folders if folder is not None]
    return tuple(f"{name}/" for name in names if name)


def _pictures(folder: Address) -> Iterator[list[str]]:
    for page in find_names(folder):
        yield [name for name in page if name.lower().endswith(SUFFIXES)]


def _key(name: str) -> str:
    """A name without its suffix."""
    return name.rpartition(".")[0]


def _keys(name: str, *, only_marked: bool) -> Iterator[tuple[str, str]]:
    """The keys of the photographs that a mask may belong to, with its name. only_marked: only by the ending."""
    key = _key(name)
    if not only_marked:
        yield key, name
    if key.endswith(_MASK_ENDING):
        yield key.removesuffix(_MASK_ENDING), name
