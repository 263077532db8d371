"""`cisi-run`: photographs and masks in, inpainted photographs out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_runtime.cli.backend_options import backend_options, check_threads, take_backend_options
from cisi_runtime.cli.command import ADDRESS, PATH, command, run_command
from cisi_runtime.cli.numbers import FiniteRange
from cisi_runtime.cli.run_options import RunOptions, model_errors, tell_backend
from cisi_runtime.console import LOUDNESS, say, say_json, tell, tell_more, warn
from cisi_runtime.errors import DataError, error_prefix

if TYPE_CHECKING:
    from cisi_runtime.batch.job import Job
    from cisi_runtime.batch.photograph import CompletedPhotograph
    from cisi_runtime.inpainting.inpainter import Inpainter

_NO_MASK = "expected a hole mask: --mask FILE, or --mask-from-alpha"


@command(summary="Inpaint photographs.", verbose="Also where a hole got no detail and why, and what was compiled.")
@click.argument("images", metavar="IMAGE...", type=ADDRESS, nargs=-1)
@click.option("--mask", type=ADDRESS, help="Hole mask of the same size; white = hole.")
@click.option("--mask-from-alpha", is_flag=True, help="Instead: what is transparent in IMAGE; it becomes opaque.")
@click.option("--invert-mask", is_flag=True, help="Black is the hole.")
@click.option("--dilate", type=click.IntRange(0), default=0, help="Pixels by which the hole grows.  [default: 0]")
@click.option("-o", "--output", type=ADDRESS, required=True, help="Result; its suffix is the format. Or a folder.")
@click.option("--overwrite", is_flag=True, help="For folders: replace results that exist.")
@click.option("--manifest", type=ADDRESS, help="Instead of IMAGE: a CSV or Parquet table with image, mask and output.")
@click.option("--watch", is_flag=True, help="Go on with photographs that arrive in the folder, until Ctrl-C.")
@click.option("--cluster", metavar="WHERE", help="Run on a Ray cluster: auto, ray://HOST:PORT or local[:CPUS].")
@click.option(
    "--cpus-per-worker", type=click.IntRange(1), default=1, help="CPUs of each worker of a cluster.  [default: 1]"
)
@click.option("--model", type=PATH, help="Graph, engine or checkpoint; default: the INT8 graph that ships.")
@backend_options
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    help="Threads; processes for a folder, workers of a cluster.  [default: all cores]",
)
@click.option("--max-megapixels", type=FiniteRange(0, min_open=True), help="Refuse larger pictures.  [default: 80]")
@click.option("--no-detail", is_flag=True, help="The smooth fill, without texture from around the hole.")
@click.option(
    "--sheet", type=PATH, help="Also write original, hole, fill without detail (unless --no-detail) and result."
)
def run(**values: Any) -> None:
    """Inpaint IMAGE where the mask is white (128 and above).

    IMAGE is a photograph, several, "-" for standard input, or a folder. For a folder or several, --mask is a folder
    with masks of the same names (a.png or a.mask.png for a.jpg) or one mask for all, for a folder by default the folder
    itself; --output is a folder. Photographs whose result exists are skipped, so the same command continues a run that
    was interrupted. "--output -" is standard output, in the format of IMAGE.

    IMAGE, --mask, --manifest and --output may also lie in a store: s3://, gs:// or az://.

    In PNG, WebP, TIFF and BMP files every known pixel stays as it is. A JPEG file is coded as IMAGE was, and the
    largest change of a known pixel is printed. Metadata, colour profile and resolution are kept; what is not kept is
    printed. Thumbnails and layers are left out.
    """
    threads = values.pop("threads")
    options = RunOptions(backend=take_backend_options(values), threads=threads, **values)
    is_folder = _check_usage(options)
    from cisi_runtime.pictures.pillow import prepare_for_photographs

    prepare_for_photographs()
    if is_folder:
        from cisi_runtime.cli.run_many import run_many

        run_many(options)
    else:
        _run_photograph(options)


def _check_usage(options: RunOptions) -> bool:
    """Whether it is a run of many photographs. Raises UsageError for options that exclude each other."""
    from cisi_runtime.batch.job import PIPE
    from cisi_runtime.storage.access import is_folder, is_present

    image, mask, output = options.image, options.mask, options.output
    if (image is None) == (options.manifest is None):
        raise click.UsageError("expected IMAGE or --manifest, and not both")
    if mask is not None and options.mask_from_alpha:
        raise click.UsageError("--mask and --mask-from-alpha exclude each other")
    if options.cpus_per_worker != 1 and options.cluster is None:
        raise click.UsageError("--cpus-per-worker is for --cluster")
    if mask == PIPE and image == PIPE:
        raise click.UsageError("IMAGE and --mask are both standard input")
    folders = [given for given in options.images if given != PIPE and is_folder(given)]
    for given in options.images:
        if given not in (PIPE, *folders) and not is_present(given):
            raise DataError(f"IMAGE: {given}: no such file or folder")
    if len(options.images) > 1:
        if PIPE in options.images or folders:
            raise click.UsageError("expected several photographs, or one folder")
        if mask is None and not options.mask_from_alpha:
            raise click.UsageError(_NO_MASK)
    if len(options.images) != 1 or folders or _is_one_of_many(options):
        _check_many(options)
        return True
    if mask is None and not options.mask_from_alpha:
        raise click.UsageError(_NO_MASK)
    for name in ("overwrite", "watch", "cluster"):
        if getattr(options, name):
            raise click.UsageError(f"--{name} is for folders, and {image} is not one")
    if output == PIPE and LOUDNESS.as_json:
        raise click.UsageError("--json and the picture both go to standard output")
    if mask is not None and mask != PIPE and is_folder(mask):
        raise click.UsageError(f"--mask: {mask} is a folder: expected a folder as --output too, and no --sheet")
    return False


def _is_one_of_many(options: RunOptions) -> bool:
    """Whether one photograph is what a pattern found, or one more for a folder of results: its masks lie in a folder,
    or other runs have recorded what they made there."""
    from cisi_runtime.batch.job import PIPE
    from cisi_runtime.batch.run_record import RECORD
    from cisi_runtime.storage.access import is_folder, is_present

    if PIPE in (options.image, options.output, options.mask) or options.sheet is not None:
        return False
    if options.mask is not None and is_folder(options.mask):
        return True
    return is_folder(options.output) and is_present(options.output / RECORD)


def _check_many(options: RunOptions) -> None:
    from cisi_runtime.batch.job import PIPE
    from cisi_runtime.pictures.picture import SUFFIXES
    from cisi_runtime.storage.access import is_folder

    if options.sheet is not None or options.output == PIPE:
        raise click.UsageError("for more than one photograph: expected a folder as --output, and no --sheet")
    if isinstance(options.output, Path) and options.output.suffix.lower() in SUFFIXES and not options.output.is_dir():
        reason = "there are several photographs" if len(options.images) > 1 else "photographs or masks are in one"
        raise click.UsageError(f"--output {options.output}: expected a folder, because {reason}")
    _refuse_expanded_masks(options)
    if options.manifest == PIPE or options.mask == PIPE:
        raise click.UsageError("standard input is for one photograph")
    if options.manifest is not None and options.mask is not None and is_folder(options.mask):
        raise click.UsageError("--manifest names masks itself: expected a file as --mask, for all that have none")
    if options.watch:
        addresses = (options.image, options.mask, options.output)
        of_this_machine = all(isinstance(address, Path | None) for address in addresses)
        if not of_this_machine or len(options.images) != 1 or not is_folder(options.images[0]):
            raise click.UsageError("--watch is for a folder of this machine")
        if options.cluster is not None or options.overwrite:
            raise click.UsageError("--watch goes with neither --cluster nor --overwrite")


def _refuse_expanded_masks(options: RunOptions) -> None:
    """`--mask masks/*.png` becomes one mask, and the other masks become photographs. Raises UsageError."""
    mask = options.mask
    if not isinstance(mask, Path):
        return
    images = [image for image in options.images if isinstance(image, Path)]
    beside = [image for image in images if image.parent.absolute() == mask.parent.absolute()]
    # A shell puts them last.
    if beside and len(beside) < len(images) and beside == images[-len(beside) :]:
        raise click.UsageError(
            f"IMAGE: {beside[0]} lies beside the mask {mask}, and others do not: expected a folder as --mask (a shell "
            "makes --mask masks/*.png one mask and several photographs)"
        )


def _run_photograph(options: RunOptions) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from cisi_runtime.batch.job import LARGE_HOLE, LARGE_HOLE_WARNING, PIPE, Job, run_job
    from cisi_runtime.storage.access import is_folder

    assert options.image is not None  # `_check_usage`
    # A folder gets the photograph's name.
    into_folder = options.output != PIPE and options.image != PIPE and is_folder(options.output)
    job = Job(options.image, options.mask, options.output / options.image.name if into_folder else options.output)
    _check_sheet(options, job)
    # The model is loaded while the picture is decoded.
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(_open, options)

        def inpainter() -> Inpainter:
            opened = loading.result()
            tell_backend(opened)
            return opened

        result = run_job(job, inpainter, options.photograph_options())
    _write_sheet(options, result, loading.result())
    height, width = result.picture.size
    took = f", {result.milliseconds:.0f} ms" if result.milliseconds else ""
    for note in result.notes:
        tell_more(f"{job.image}: {note}")
    hole = float(result.hole_mask.mean())
    if hole > LARGE_HOLE:
        warn(f"{job.image}: {LARGE_HOLE_WARNING}")
    line = f"{job.output}: {width}x{height}, hole {hole:.1%}{took}, {result.report}"
    (tell if job.output == PIPE else say)(line)
    say_json(
        {
            "output": str(job.output),
            "width": width,
            "height": height,
            "hole_fraction": hole,
            "milliseconds": result.milliseconds,
            "report": result.report,
            "notes": list(result.notes),
            "backend": loading.result().backend_reason,
        }
    )


def _check_sheet(options: RunOptions, job: Job) -> None:
    from cisi_runtime.batch.job import PIPE, refuse_original
    from cisi_runtime.files import check_writable
    from cisi_runtime.pictures.writing import format_of
    from cisi_runtime.storage.addresses import identity

    if options.sheet is not None:
        with error_prefix("--sheet"):
            format_of(options.sheet)
            check_writable(options.sheet)
            refuse_original(job, options.sheet)
        if job.output != PIPE and identity(options.sheet) == identity(job.output):
            raise click.UsageError(f"--sheet and --output name the same file, {job.output}")


def _write_sheet(options: RunOptions, result: CompletedPhotograph, inpainter: Inpainter) -> None:
    if options.sheet is None:
        return
    from cisi_runtime.inpainting.inpainter import Inpainter
    from cisi_runtime.pictures.picture import Picture
    from cisi_runtime.pictures.sheet import picture_sheet, show_hole
    from cisi_runtime.pictures.writing import write_picture

    before, after = result.picture.rgb, result.completed.rgb
    with error_prefix("--sheet"):
        row, captions = [before, show_hole(before, result.hole_mask), after], ["original", "hole", "result"]
        if not options.no_detail:
            row.insert(2, Inpainter(inpainter.backend, detail=False)(before, result.hole_mask))
            captions.insert(2, "without detail")
        sheet = picture_sheet([row], [captions])
        write_picture(options.sheet, Picture(sheet))


def _open(options: RunOptions) -> Inpainter:
    from cisi_runtime.inpainting.inpainter import Inpainter

    check_threads(options.threads, options.backend, options.model)
    with model_errors():
        backend = dataclasses.replace(options.backend, threads=options.threads)
        return Inpainter(options.model, detail=not options.no_detail, **dataclasses.asdict(backend))


def main() -> None:
    """Entry point of `cisi-run`."""
    run_command(run, "cisi-run")
