"""`cisi-run`: photographs and masks in, inpainted photographs out."""

from __future__ import annotations

import dataclasses
import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_runtime.backends.registry import BACKENDS, PRECISIONS
from cisi_runtime.cli.command import PATH, run_command
from cisi_runtime.errors import error_prefix

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from cisi_runtime.batch.job import Job, JobSummary
    from cisi_runtime.batch.photograph import CompletedPhotograph, PhotographOptions
    from cisi_runtime.errors import CisiError
    from cisi_runtime.inpainting.inpainter import Inpainter


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """What `cisi-run` was asked to do; each field is the option of its name."""

    image: Path
    mask: Path | None
    mask_from_alpha: bool
    invert_mask: bool
    dilate: int
    output: Path
    overwrite: bool
    model: Path | None
    backend: str
    precision: str
    threads: int
    max_megapixels: float | None
    sheet: Path | None
    no_detail: bool
    verbose: bool

    def photograph_options(self) -> PhotographOptions:
        """How photographs are read."""
        from cisi_runtime.batch.photograph import HoleOptions, PhotographOptions
        from cisi_runtime.pictures.reading import MAX_PIXELS

        max_pixels = MAX_PIXELS if self.max_megapixels is None else round(self.max_megapixels * 1e6)
        return PhotographOptions(HoleOptions(self.invert_mask, self.dilate), max_pixels)


@click.command()
@click.argument("image", type=PATH)
@click.option("--mask", type=PATH, help="Hole mask of the same size; white = hole.")
@click.option("--mask-from-alpha", is_flag=True, help="Instead: what is transparent in IMAGE; it becomes opaque.")
@click.option("--invert-mask", is_flag=True, help="Black is the hole.")
@click.option("--dilate", type=click.IntRange(0), default=0, help="Pixels by which the hole grows.  [default: 0]")
@click.option("-o", "--output", type=PATH, required=True, help="Result; its suffix is the format.")
@click.option("--overwrite", is_flag=True, help="For folders: replace results that exist.")
@click.option("--model", type=PATH, help="Graph, engine or checkpoint; default: the INT8 graph that ships.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="auto",
    show_default=True,
    help="auto: onnxruntime for a graph, tensorrt for an engine, torch for a checkpoint.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="stored",
    show_default=True,
    help="bf16: bfloat16 in OpenVINO or PyTorch, on a CPU that has it.",
)
@click.option(
    "--threads", type=click.IntRange(0), default=0, help="Threads; processes for a folder.  [default: all cores]"
)
@click.option(
    "--max-megapixels", type=click.FloatRange(0, min_open=True), help="Refuse larger pictures.  [default: 80]"
)
@click.option("--no-detail", is_flag=True, help="The network's smooth fill, without texture from around the hole.")
@click.option("--sheet", type=PATH, help="Also write original, hole, network's fill (unless --no-detail) and result.")
@click.option("--verbose", is_flag=True, help="Also say where a hole got no detail and why, and what was compiled.")
def run(**values: Any) -> None:
    """Inpaint IMAGE where the mask is white (128 and above).

    IMAGE is a photograph, "-" for standard input, or a folder. For a folder, --mask is a folder with masks of the same
    names (a.png or a.mask.png for a.jpg) or one mask for all, and --output is a folder. Photographs whose result exists
    are skipped, so the same command continues a run that was interrupted. "--output -" is standard output, in the
    format of IMAGE.

    In PNG, WebP, TIFF and BMP files every known pixel stays as it is. A JPEG file is coded as IMAGE was, and the
    largest change of a known pixel is printed. Metadata, colour profile and resolution are kept; what is not kept is
    printed. Thumbnails and layers are left out.
    """
    options = RunOptions(**values)
    _check_usage(options)
    from cisi_runtime.pictures.pillow import prepare_for_photographs

    prepare_for_photographs()
    if options.image.is_dir():
        _run_folder(options)
    else:
        _run_photograph(options)


def _check_usage(options: RunOptions) -> None:
    """Raise UsageError for options that exclude each other."""
    from cisi_runtime.batch.job import PIPE

    image, mask, output, sheet = options.image, options.mask, options.output, options.sheet
    if (mask is None) != options.mask_from_alpha:
        raise click.UsageError("expected --mask or --mask-from-alpha, and not both")
    if sheet is not None and sheet.absolute() == output.absolute():
        raise click.UsageError("--sheet and --output name the same file")
    if options.max_megapixels is not None and not isfinite(options.max_megapixels):
        raise click.UsageError(f"--max-megapixels: {options.max_megapixels}, expected a number")
    if mask == PIPE and image == PIPE:
        raise click.UsageError("IMAGE and --mask are both standard input")
    if image.is_dir():
        if sheet is not None or output == PIPE:
            raise click.UsageError(f"{image} is a folder: expected a folder as --output, and no --sheet")
    elif options.overwrite:
        raise click.UsageError("--overwrite is for folders; the result of one photograph is always written")
    elif mask is not None and mask.is_dir():
        raise click.UsageError(f"--mask: {mask} is a folder, and {image} is not")


def _run_photograph(options: RunOptions) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from cisi_runtime.batch.job import PIPE, Job, run_job

    job = Job(options.image, options.mask, options.output)
    _check_sheet(options, job)
    # The model is loaded while the picture is decoded.
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(_open, options, options.threads)

        def inpainter() -> Inpainter:
            opened = loading.result()
            _tell_backend(opened)
            return opened

        result = run_job(job, inpainter, options.photograph_options())
    _write_sheet(options, result, loading.result())
    height, width = result.picture.size
    took = f", {result.milliseconds:.0f} ms" if result.milliseconds else ""
    for note in result.notes if options.verbose else ():
        click.echo(f"{job.image}: {note}", err=True)
    line = f"{width}x{height}, hole {result.hole_mask.mean():.1%}{took}, {result.report}"
    click.echo(f"{job.output}: {line}", err=job.output == PIPE)


def _check_sheet(options: RunOptions, job: Job) -> None:
    from cisi_runtime.batch.job import refuse_original
    from cisi_runtime.files import check_writable
    from cisi_runtime.pictures.writing import format_of

    if options.sheet is not None:
        with error_prefix("--sheet"):
            format_of(options.sheet)
            check_writable(options.sheet)
            refuse_original(job, options.sheet)


def _write_sheet(options: RunOptions, result: CompletedPhotograph, inpainter: Inpainter) -> None:
    if options.sheet is None:
        return
    from cisi_runtime.inpainting.inpainter import Inpainter
    from cisi_runtime.pictures.picture import Picture
    from cisi_runtime.pictures.sheet import picture_sheet, show_hole
    from cisi_runtime.pictures.writing import write_picture

    before, after = result.picture.rgb, result.completed.rgb
    with error_prefix("--sheet"):
        row = [before, show_hole(before, result.hole_mask), after]
        if not options.no_detail:
            row.insert(2, Inpainter(inpainter.backend, detail=False)(before, result.hole_mask))
        sheet = picture_sheet([row])
        write_picture(options.sheet, Picture(sheet))


def _run_folder(options: RunOptions) -> None:
    from tqdm import tqdm

    from cisi_runtime.backends.cores import available_cores
    from cisi_runtime.batch.folder import plan_jobs, run_jobs
    from cisi_runtime.errors import DataError
    from cisi_runtime.files import remove_left_over

    if options.mask is not None and not options.mask.exists():
        raise DataError(f"--mask: {options.mask}: no such file or folder")
    with error_prefix("--output"):
        jobs, faults = plan_jobs(options.image, options.mask, options.output)
    remove_left_over(options.output)
    pending = jobs if options.overwrite else [job for job in jobs if not job.output.exists()]
    workers = options.threads or available_cores()
    report = _FolderReport(options.output, existing=len(jobs) - len(pending), faults=faults, verbose=options.verbose)
    if pending:
        pool, work = _start_workers(options, min(workers, len(pending)))
        results = run_jobs(pending, work, pool)
        for job, result in tqdm(results, total=len(pending), unit="image", mininterval=0.5):
            report.add(job, result)
    report.print()
    if report.faults:
        raise DataError(f"{options.image}: {len(report.faults)} photographs failed, named above")


def _start_workers(options: RunOptions, workers: int) -> tuple[Executor, Callable[[Job], JobSummary]]:
    from cisi_runtime.batch.workers import WorkerOptions, start_workers

    worker = WorkerOptions(
        options.model, options.backend, options.precision, not options.no_detail, options.photograph_options()
    )
    # Opened here first, so that what is wrong with it is said once.
    with error_prefix("--model"):
        inpainter = worker.open()
    _tell_backend(inpainter)
    return start_workers(worker, inpainter, workers)


@dataclasses.dataclass
class _FolderReport:
    """What a folder run did so far.

    output: folder of the results.
    existing: results that were there before.
    faults: a line for each photograph that failed.
    verbose: whether notes are printed.
    written: number of results written.
    without_hole: number of photographs without a hole.
    largest_change: largest change of a known pixel, in grey levels, and the photograph's name.
    """

    output: Path
    existing: int
    faults: list[str]
    verbose: bool
    written: int = 0
    without_hole: int = 0
    largest_change: tuple[int, str] = (0, "")

    def add(self, job: Job, result: JobSummary | CisiError) -> None:
        """Take in one photograph; what its result lacks is printed at once."""
        from tqdm import tqdm

        from cisi_runtime.errors import CisiError

        if isinstance(result, CisiError):
            self.faults.append(str(result) if str(job.image) in str(result) else f"{job.image}: {result}")
            return
        self.written += 1
        self.without_hole += not result.has_hole
        self.largest_change = max(self.largest_change, (result.change, str(job.output)))
        for note in result.notes if self.verbose else ():
            tqdm.write(f"{job.image}: {note}", file=sys.stderr)
        if ", not kept: " in result.report:
            tqdm.write(f"{job.output}: {result.report}", file=sys.stderr)

    def print(self) -> None:
        """Faults on stderr, counts on stdout."""
        for fault in self.faults:
            click.echo(fault, err=True)
        click.echo(f"{self.output}: {self.written} written, {self.existing} there already, {len(self.faults)} failed")
        if self.without_hole:
            click.echo(f"{self.without_hole} of them without a hole: copied, or converted")
        change, name = self.largest_change
        if change:
            click.echo(f"known pixels changed by at most {change} of 255, by a lossy format ({name})")


def _open(options: RunOptions, threads: int) -> Inpainter:
    from cisi_runtime.inpainting.inpainter import Inpainter

    with error_prefix("--model"):
        return Inpainter(
            options.model, options.backend, threads=threads, precision=options.precision, detail=not options.no_detail
        )


def _tell_backend(inpainter: Inpainter) -> None:
    if inpainter.warning is not None:
        click.echo(f"warning: {inpainter.warning}", err=True)
    click.echo(inpainter.backend_reason, err=True)


def main() -> None:
    """Entry point of `cisi-run`."""
    run_command(run, "cisi-run")
