"""The part of `cisi-run` that works on many photographs: a folder, a manifest, a folder that is watched."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from cisi_runtime.backends.cores import available_cores
from cisi_runtime.batch.folder import add_results, plan_files, plan_folder
from cisi_runtime.batch.job import LARGE_HOLE_WARNING, Job, JobSummary
from cisi_runtime.batch.manifest import plan_manifest
from cisi_runtime.batch.only_run import only_run
from cisi_runtime.batch.plan import Plan
from cisi_runtime.batch.report import FAILURES, RunReport, check_failures
from cisi_runtime.batch.result_folders import ResultFolders
from cisi_runtime.batch.run_record import RunRecord, recorded_options
from cisi_runtime.batch.workers import WorkerOptions, run_jobs, start_workers
from cisi_runtime.cli.run_options import RunOptions, model_errors, tell_backend
from cisi_runtime.console import LOUDNESS, say, say_json, tell, tell_always, tell_more, warn
from cisi_runtime.errors import CisiError, DataError, OutputError, error_prefix
from cisi_runtime.files import remove_left_over
from cisi_runtime.inpainting.model import shipped_graph
from cisi_runtime.pictures.picture import SUFFIXES
from cisi_runtime.storage.access import is_folder, is_present, read_address
from cisi_runtime.storage.addresses import Address, identity

if TYPE_CHECKING:
    from cisi_runtime.batch.cluster import ClusterOptions

# Photographs that failed are named on stderr up to this number; the list has all.
_NAMED = 100
_Results = Iterator[tuple[Job, JobSummary | CisiError]]


def run_many(options: RunOptions) -> None:
    """Do what `options` asks for. Raises DataError when photographs failed."""
    try:
        _run_many(options)
    except sqlite3.Error as error:
        raise DataError(f"the list of photographs cannot be kept ({error}): $SQLITE_TMPDIR names its folder") from error


def _run_many(options: RunOptions) -> None:
    with error_prefix("--mask"):
        if options.mask is not None and not is_present(options.mask):
            raise DataError(f"{options.mask}: no such file or folder")
    cluster = _cluster_options(options)
    with contextlib.ExitStack() as stack:
        with error_prefix("--output"):
            stack.enter_context(only_run(options.output))
        if options.watch:
            _watch(options)
        else:
            with _terminated_as_interrupted():
                _run_plan(options, cluster)


def _run_plan(options: RunOptions, cluster: ClusterOptions | None) -> None:
    with _plan(options) as plan:
        if isinstance(options.output, Path):
            remove_left_over(options.output)
        record = _record(options)
        with error_prefix("--output"):
            check_failures(options.output)
            record.check(has_results=plan.has_results(identity(options.output)), overwrite=options.overwrite)
        with RunReport(options.output, plan.existing) as report:
            pending = plan.pending
            with _listed(report, options):
                for job, reason in plan.refusals():
                    _name(report, report.add_failure(job, reason))
                if pending:
                    jobs = _recorded(_with_folders(plan, report, options), record)
                    results = _on_cluster(jobs, pending, cluster, options) if cluster else _here(jobs, pending, options)
                    _add_all(_bar(results, pending), report)
                    if not report.failed and record.replaces_others:
                        folders = (each for each in (*options.images, options.mask) if each and is_folder(each))
                        add_results(plan, options.output, *folders)
                        if not plan.has_results_of_others(identity(options.output)):
                            record.finish()


def _record(options: RunOptions) -> RunRecord:
    """What the results are made with. Of masks in a folder, or beside the photographs, nothing is kept."""
    model = options.model or shipped_graph(options.backend)
    with error_prefix("--model"):
        try:
            network = hashlib.sha256(model.read_bytes()).hexdigest()[:12]
        except OSError as error:
            raise DataError(f"{model}: {error.strerror or error}") from error
    return RunRecord(
        options.output,
        {
            "--model": f"{model.name} ({network})",
            "--mask": "from alpha" if options.mask_from_alpha else _recorded_mask(options),
            "--backend": options.backend.backend,
            "--device": options.backend.device,
            "--precision": options.backend.precision,
            "--invert-mask": str(options.invert_mask),
            "--dilate": str(options.dilate),
            "--no-detail": str(options.no_detail),
        },
    )


def _recorded_mask(options: RunOptions) -> str:
    """A mask that all photographs share, by its contents."""
    own = "of each photograph"
    if options.mask is None or is_folder(options.mask):
        return own
    shared = f"{options.mask.name} ({hashlib.sha256(read_address(options.mask)).hexdigest()[:12]})"
    is_of_one = len(options.images) == 1 and _is_photograph(options.images[0])
    # The mask of one photograph is its own, unless the others had the same.
    return own if is_of_one and recorded_options(options.output).get("--mask") != shared else shared


def _is_photograph(image: Address) -> bool:
    """And no folder. In a store that goes by the name, because asking takes a request."""
    return image.is_file() if isinstance(image, Path) else image.name.lower().endswith(SUFFIXES)


def _plan(options: RunOptions) -> Plan:
    try:
        if options.manifest is not None:
            return plan_manifest(
                options.manifest,
                options.mask,
                options.output,
                from_alpha=options.mask_from_alpha,
                overwrite=options.overwrite,
            )
        if len(options.images) > 1 or _is_photograph(options.images[0]):
            return plan_files(options.images, options.mask, options.output, overwrite=options.overwrite)
        assert options.image is not None  # `_check_usage`
        mask = options.mask if options.mask or options.mask_from_alpha else options.image
        return plan_folder(options.image, mask, options.output, overwrite=options.overwrite, may_be_empty=options.watch)
    except OutputError as error:
        raise OutputError(f"--output: {error}") from error
    except DataError as error:
        raise DataError(f"{'IMAGE' if options.manifest is None else '--manifest'}: {error}") from error


def _recorded(jobs: Iterator[Job], record: RunRecord) -> Iterator[Job]:
    """The same; they are asked for once there is a network that makes them."""
    with error_prefix("--output"):
        record.begin()
    yield from jobs


def _with_folders(plan: Plan, report: RunReport, options: RunOptions) -> Iterator[Job]:
    """The plan's jobs, each once the folder of its result is there."""
    if not isinstance(options.output, Path):
        yield from plan.jobs()
        return
    originals = [address for address in (*options.images, options.mask) if address is not None and is_folder(address)]
    folders = ResultFolders(options.output, originals)
    for job in plan.jobs():
        assert isinstance(job.output, Path)
        try:
            is_linked = folders.make(job.output.parent)
            if is_linked and plan.is_original(identity(job.output)):
                raise OutputError(f"{job.output}: is an original, expected another output")
        except CisiError as error:
            _name(report, report.add_failure(job, str(error)))
            continue
        if is_linked and job.output.exists() and not options.overwrite:
            report.existing += 1
        else:
            yield job


def _here(jobs: Iterator[Job], pending: int, options: RunOptions) -> _Results:
    """In processes or threads of this machine."""
    workers = min(options.threads or available_cores(), pending)
    pool, run = _start(options, workers)
    return run_jobs(jobs, run, pool, 2 * workers)


def _start(options: RunOptions, workers: int) -> tuple[Executor, Callable[[Job], JobSummary]]:
    worker = _worker_options(options)
    # Opened here first, so that what is wrong with it is said once.
    with model_errors():
        inpainter = worker.open()
    tell_backend(inpainter)
    return start_workers(worker, inpainter, workers)


def _on_cluster(jobs: Iterator[Job], pending: int, cluster: ClusterOptions, options: RunOptions) -> _Results:
    from cisi_runtime.batch.cluster import run_on_cluster

    return run_on_cluster(jobs, dataclasses.replace(cluster, at_most=pending), _worker_options(options), tell)


def _cluster_options(options: RunOptions) -> ClusterOptions | None:
    if options.cluster is None:
        return None
    import ray  # noqa: F401  so that its lack is told first

    from cisi_runtime.batch.cluster import ClusterOptions, parse_cluster

    with error_prefix("--cluster"):
        address, cpus = parse_cluster(options.cluster)
    addresses = (options.image, options.mask, options.output)
    return ClusterOptions(
        address,
        cpus,
        workers=options.threads or None,
        cpus_per_worker=options.cpus_per_worker,
        overlap=options.manifest is not None or any(not isinstance(address, Path | None) for address in addresses),
    )


def _worker_options(options: RunOptions) -> WorkerOptions:
    backend = dataclasses.replace(options.backend, threads=1)
    return WorkerOptions(options.model, backend, not options.no_detail, options.photograph_options())


def _watch(options: RunOptions) -> None:
    """Until Ctrl-C or SIGTERM, which are the ordinary end of it; a second one does not wait."""
    import watchdog  # noqa: F401  so that its lack is told first

    from cisi_runtime.batch.watch import Watch

    assert isinstance(options.output, Path)  # `_check_usage`
    workers = options.threads or available_cores()
    with _plan(options) as plan:  # what is wrong with the folders is said first
        existing, has_results = plan.existing, plan.has_results(identity(options.output))
        remove_left_over(options.output)
    with error_prefix("--output"):
        check_failures(options.output)
        (record := _record(options)).check(has_results=has_results, overwrite=False)
    folders = {folder for folder in (options.image, options.mask) if isinstance(folder, Path) and folder.is_dir()}
    pool, run = _start(options, workers)
    with error_prefix("--output"):
        record.begin()
    watch = Watch(lambda: _plan(options), sorted(folders), options.output, 2 * workers)
    with RunReport(options.output, existing) as report, _listed(report, options), _stopped_by_signals(watch.stop):
        tell(f"watching {options.image} until Ctrl-C")
        _add_all(_bar(watch.run(run, pool), None), report)
        with _plan(options) as plan:
            for job, reason in plan.refusals():
                _name(report, report.add_failure(job, reason))


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is Ctrl-C. Without that the first process of a container would not even end by it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop_once(*_: object) -> None:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop()

    for number in numbers:
        signal.signal(number, stop_once)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _bar(results: _Results, total: int | None) -> _Results:
    is_hidden = LOUDNESS.quiet or sys.stderr is None  # None: it is closed
    yield from tqdm(results, total=total, unit=" image", mininterval=0.5, disable=is_hidden)


def _add_all(results: _Results, report: RunReport) -> None:
    """Take in all results; what one of them lacks is printed at once."""
    for job, result in results:
        if (reason := report.add(job, result)) is not None:
            _name(report, reason)
        elif not isinstance(result, CisiError):
            for note in result.notes:
                tell_more(f"{job.image}: {note}")
            if ", not kept: " in result.report:
                tell(f"{job.output}: {result.report}")


@contextlib.contextmanager
def _listed(report: RunReport, options: RunOptions) -> Iterator[None]:
    """Write the list of failures and print the counts at the end. Raises DataError when photographs failed."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            rest = "" if options.overwrite else "; the same command goes on with the rest"
            tell_always(f"{report.output}: {report.written} written{rest}")
        if report.failed:
            with contextlib.suppress(CisiError):  # what ended it is what is told
                report.write_failures()
        raise
    with error_prefix("--output"):
        report.write_failures()
    say("\n".join(report.lines()))
    if report.with_large_hole:
        warn(f"{report.with_large_hole} of them: {LARGE_HOLE_WARNING}")
    say_json(report.as_json())
    if report.failed:
        where = f"{report.output / FAILURES}"
        what = options.manifest or (options.image if len(options.images) == 1 else f"of {len(options.images)}")
        raise DataError(f"{what}: {report.failed} photographs failed, named in {where}")


def _name(report: RunReport, reason: str) -> None:
    """Say why a photograph failed, unless many have."""
    if report.failed <= _NAMED:
        tell_always(reason)
    elif report.failed == _NAMED + 1:
        tell_always(f"more than {_NAMED} photographs failed; {FAILURES} will name all")
