"""A folder of photographs: which mask belongs to which, and all of them through the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from cisi_runtime.errors import CisiError, DataError, OutputError
from cisi_runtime.files import make_folder
from cisi_runtime.jobs import Finished, Job
from cisi_runtime.pictures import find_pictures

# Masks may be called as their photograph, or with this before the suffix.
_MASK_ENDING = ".mask"


def plan_jobs(photographs: Path, masks: Path | None, output: Path) -> tuple[list[Job], list[str]]:
    """A job for every photograph below a folder, with the same path below `output`; and what is wrong with those that
    cannot be done, a line each. Folders that are needed are made.

    masks: a folder, in which the mask of `a/b.jpg` is `a/b` or `a/b.mask` with any picture's suffix (only the latter
    where it is the folder of the photographs); one file for all; or None. Raises DataError for a folder without
    photographs, OutputError for an output folder that would hold results among originals.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file, expected a folder, as {photographs} is one")
    mask_folder = masks if masks is not None and masks.is_dir() else None
    for folder, what in ((photographs, "photographs"), (mask_folder, "masks")):
        if folder is not None and output.exists() and output.samefile(folder):
            raise OutputError(f"{output}: is the folder of the {what}, expected another: an original is kept")
    is_shared = mask_folder is not None and mask_folder.samefile(photographs)
    # Results and masks that lie within the folder of the photographs are none themselves.
    inside = [folder for folder in (output, mask_folder) if folder is not None and _is_below(folder, photographs)]
    found = [path for path in find_pictures(photographs) if not any(_is_below(path, folder) for folder in inside)]
    if is_shared:
        found = [path for path in found if not path.stem.endswith(_MASK_ENDING)]
    if not found:
        raise DataError(f"{photographs}: no photographs found")
    by_name = _masks_by_name(mask_folder, only_marked=is_shared) if mask_folder is not None else {}
    jobs: list[Job] = []
    faults: list[str] = []
    for path in found:
        own = path.relative_to(photographs)
        mask = masks
        if mask_folder is not None:
            candidates = by_name.get(own.with_suffix(""), [])
            if len(candidates) != 1:
                known = f"{len(candidates)}: {', '.join(map(str, candidates))}" if candidates else "none"
                faults.append(f"{path}: expected one mask of this name in {mask_folder}, found {known}")
                continue
            mask = candidates[0]
        jobs.append(Job(path, mask, output / own))
    make_folder(output)
    for folder in {job.output.parent for job in jobs}:
        make_folder(folder)
    return jobs, faults


def run_jobs(
    jobs: Sequence[Job], run: Callable[[Job], Finished], workers: int
) -> Iterator[tuple[Job, Finished | CisiError]]:
    """Each job with what it did or why it failed, in the order in which they end.

    Each of `workers` threads takes one photograph after the other from file to file, with one thread for its network:
    decoding, running and encoding of different photographs overlap, and no more threads work than there are cores.
    What is under way is finished when the caller leaves early; the rest is not begun.
    """
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="photograph")
    try:
        futures: dict[Future[Finished], Job] = {pool.submit(run, job): job for job in jobs}
        for future in as_completed(list(futures)):
            job = futures.pop(future)  # with it goes the picture that it holds
            try:
                yield job, future.result()
            except CisiError as error:
                yield job, error
            except MemoryError:
                yield job, DataError(f"{job.image}: there is not enough memory for it")
            except Exception as error:  # one file is never the end of all
                yield job, DataError(f"{job.image}: {type(error).__name__}: {error}")
            del future
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def default_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _masks_by_name(folder: Path, *, only_marked: bool) -> dict[Path, list[Path]]:
    """Masks by their path in the folder, without suffix and ending."""
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
    """Strictly: not the folder itself."""
    return folder.resolve() in path.resolve().parents
