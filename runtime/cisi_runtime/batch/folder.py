"""A folder of photographs: which mask belongs to which, and all of them through the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from cisi_runtime.batch.job import Job, JobSummary
from cisi_runtime.errors import CisiError, DataError, OutputError
from cisi_runtime.files import make_folder
from cisi_runtime.pictures.reading import find_pictures

# Why a photograph and those behind it have no result.
_KILLED = "not done, because a worker was killed, perhaps for want of memory"
# A mask has its photograph's name, or that name with this before the suffix.
_MASK_ENDING = ".mask"


def plan_jobs(photographs: Path, masks: Path | None, output: Path) -> tuple[list[Job], list[str]]:
    """A job for every photograph below a folder, with the same path below `output`, and a line for each photograph that
    cannot be done. Makes the output folders.

    masks: a folder, one file for all photographs, or None. In a folder the mask of `a/b.jpg` is `a/b` or `a/b.mask`
        with any picture suffix; where it is the folder of the photographs, only the latter.

    Raises DataError for a folder without photographs, OutputError for an output folder that holds originals.
    """
    mask_folder = masks if masks is not None and masks.is_dir() else None
    _check_folders(photographs, mask_folder, output)
    paths = _photographs(photographs, mask_folder, output)
    if not paths:
        raise DataError(f"{photographs}: no photographs found")
    if mask_folder is None:
        jobs = [Job(path, masks, output / path.relative_to(photographs)) for path in paths]
        faults: list[str] = []
    else:
        jobs, faults = _jobs_with_masks(paths, photographs, mask_folder, output)
    make_folder(output)
    for folder in {job.output.parent for job in jobs}:
        make_folder(folder)
    return jobs, faults


def run_jobs(
    jobs: Sequence[Job], run: Callable[[Job], JobSummary], pool: Executor
) -> Iterator[tuple[Job, JobSummary | CisiError]]:
    """Each job with its summary, or the error that ended it, in the order in which they end. Shuts the pool down.

    When the caller leaves early, running jobs are finished and no others begun.
    """
    try:
        futures: dict[Future[JobSummary], Job] = {}
        for job in jobs:
            try:
                futures[pool.submit(run, job)] = job
            except BrokenProcessPool:  # as below, before all were submitted
                yield job, DataError(f"{job.image}: {_KILLED}")
        for future in as_completed(list(futures)):
            job = futures.pop(future)
            try:
                yield job, future.result()
            except CisiError as error:
                yield job, error
            except MemoryError:
                yield job, DataError(f"{job.image}: there is not enough memory for it")
            except BrokenProcessPool:
                yield job, DataError(f"{job.image}: {_KILLED}")
            except Exception as error:  # one bad file must not end the run
                yield job, DataError(f"{job.image}: {type(error).__name__}: {error}")
            del future
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_folders(photographs: Path, mask_folder: Path | None, output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file, expected a folder, as {photographs} is one")
    for folder, what in ((photographs, "photographs"), (mask_folder, "masks")):
        if folder is not None and output.exists() and output.samefile(folder):
            raise OutputError(f"{output}: is the folder of the {what}, expected another: an original is kept")


def _photographs(photographs: Path, mask_folder: Path | None, output: Path) -> list[Path]:
    """Pictures below a folder that are neither results nor masks."""
    inside = [folder for folder in (output, mask_folder) if folder is not None and _is_below(folder, photographs)]
    paths = [path for path in find_pictures(photographs) if not any(_is_below(path, folder) for folder in inside)]
    if mask_folder is not None and mask_folder.samefile(photographs):
        paths = [path for path in paths if not path.stem.endswith(_MASK_ENDING)]
    return paths


def _jobs_with_masks(
    paths: Sequence[Path], photographs: Path, mask_folder: Path, output: Path
) -> tuple[list[Job], list[str]]:
    by_name = _masks_by_name(mask_folder, only_marked=mask_folder.samefile(photographs))
    jobs: list[Job] = []
    faults: list[str] = []
    for path in paths:
        name = path.relative_to(photographs)
        masks = by_name.get(name.with_suffix(""), [])
        if len(masks) == 1:
            jobs.append(Job(path, masks[0], output / name))
        else:
            present = f"{len(masks)}: {', '.join(map(str, masks))}" if masks else "none"
            faults.append(f"{path}: expected one mask of this name in {mask_folder}, found {present}")
    return jobs, faults


def _masks_by_name(folder: Path, *, only_marked: bool) -> dict[Path, list[Path]]:
    """Masks by their path in the folder, without suffix and ending. only_marked: only those with the ending."""
    masks: dict[Path, list[Path]] = {}
    for path in find_pictures(folder):
        is_marked = path.stem.endswith(_MASK_ENDING)
        name = path.relative_to(folder).with_suffix("")
        if not only_marked:
            masks.setdefault(name, []).append(path)
        if is_marked:
            masks.setdefault(name.with_name(name.name.removesuffix(_MASK_ENDING)), []).append(path)
    return masks


def _is_below(path: Path, folder: Path) -> bool:
    """Whether a path lies below a folder; False for the folder itself."""
    return folder.resolve() in path.resolve().parents
