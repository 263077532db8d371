"""`cisi-run`: photographs and masks in, inpainted photographs out."""

from __future__ import annotations

import sys
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cisi_runtime.command import option, run_command

if TYPE_CHECKING:
    from cisi_runtime.inpainter import Inpainter
    from cisi_runtime.jobs import Finished, HoleRules, Job


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--mask", type=click.Path(path_type=Path), help="Hole mask of the same size; white = hole.")
@click.option("--mask-from-alpha", is_flag=True, help="Instead: what is transparent in IMAGE; it becomes opaque.")
@click.option("--invert-mask", is_flag=True, help="Black is the hole.")
@click.option("--dilate", type=click.IntRange(0), default=0, help="Grow the hole by so many pixels.  [default: 0]")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Result; its suffix is the format."
)
@click.option("--overwrite", is_flag=True, help="In a folder: make results anew that are there already.")
@click.option("--model", type=click.Path(path_type=Path), help="Graph, engine or checkpoint; default: what ships.")
@click.option(
    "--backend",
    type=click.Choice(["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt", "torch"]),
    default="auto",
    show_default=True,
    help="auto: onnxruntime for a graph, tensorrt for an engine, torch for a checkpoint.",
)
@click.option("--threads", type=click.IntRange(0), default=0, help="Threads that work at a time; default: all cores.")
@click.option(
    "--max-megapixels", type=click.FloatRange(0, min_open=True), help="Refuse larger pictures.  [default: 80]"
)
@click.option("--sheet", type=click.Path(path_type=Path), help="Also write original, input and result side by side.")
def run(
    image: Path,
    mask: Path | None,
    mask_from_alpha: bool,
    invert_mask: bool,
    dilate: int,
    output: Path,
    overwrite: bool,
    model: Path | None,
    backend: str,
    threads: int,
    max_megapixels: float | None,
    sheet: Path | None,
) -> None:
    """Inpaint IMAGE where the mask is white (128 and above).

    IMAGE is a photograph, "-" for standard input, or a folder. For a folder, --mask is a folder with masks of the same
    names (a.png or a.mask.png for a.jpg) or one mask for all, and --output a folder; photographs whose result is there
    are skipped, so that a run that was ended is taken up by the same command. "--output -" is standard output, in the
    format of IMAGE.

    In PNG, WebP, TIFF and BMP files every known pixel stays as it is; a JPEG file is coded as IMAGE was, and how much
    its known pixels changed is told. Metadata, colour profile and resolution are kept, and what is not is told;
    thumbnails and layers are left out.
    """
    if (mask is None) != mask_from_alpha:
        raise click.UsageError("expected --mask or --mask-from-alpha, and not both")
    if sheet is not None and sheet.absolute() == output.absolute():
        raise click.UsageError("--sheet and --output name the same file")
    if max_megapixels is not None and not isfinite(max_megapixels):
        raise click.UsageError(f"--max-megapixels: {max_megapixels}, expected a number")
    from PIL import Image

    from cisi_runtime.jobs import PIPE, HoleRules
    from cisi_runtime.pictures import MOST_PIXELS

    if mask == PIPE and image == PIPE:
        raise click.UsageError("IMAGE and --mask are both standard input")
    Image.MAX_IMAGE_PIXELS = None  # the reader has a limit of its own, which can be raised
    rules = HoleRules(invert_mask, dilate)
    most_pixels = MOST_PIXELS if max_megapixels is None else round(max_megapixels * 1e6)
    if image.is_dir():
        if sheet is not None or output == PIPE:
            raise click.UsageError(f"{image} is a folder: expected a folder as --output, and no --sheet")
        _run_folder(image, mask, output, rules, most_pixels, model, backend, threads, overwrite=overwrite)
    else:
        if overwrite:
            raise click.UsageError("--overwrite is for folders; the result of one photograph is always written")
        if mask is not None and mask.is_dir():
            raise click.UsageError(f"--mask: {mask} is a folder, and {image} is not")
        from cisi_runtime.jobs import Job

        _run_one(Job(image, mask, output), rules, most_pixels, model, backend, threads, sheet)


def _run_one(
    job: Job, rules: HoleRules, most_pixels: int, model: Path | None, backend: str, threads: int, sheet: Path | None
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from cisi_runtime.files import check_writable
    from cisi_runtime.jobs import PIPE, refuse_original, run_job
    from cisi_runtime.pictures import Picture
    from cisi_runtime.writing import check_output_format, write_picture

    if sheet is not None:
        with option("--sheet"):
            check_output_format(sheet)
            check_writable(sheet)
            refuse_original(job, sheet)
    # The model is loaded while the picture is decoded.
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(_open, model, backend, threads)

        def inpainter() -> Inpainter:
            opened, warning = loading.result()
            for line in (warning, opened.chosen):
                if line is not None:
                    click.echo(line, err=True)
            return opened

        done = run_job(job, inpainter, rules, most_pixels)
    if sheet is not None:
        from cisi_runtime.sheet import picture_sheet, show_hole

        before, after = done.picture.rgb, done.completed.rgb
        with option("--sheet"):
            write_picture(sheet, Picture(picture_sheet([[before, show_hole(before, done.hole_mask), after]])))
    height, width = done.picture.size
    took = f", {done.milliseconds:.0f} ms" if done.milliseconds else ""
    line = f"{width}x{height}, hole {done.hole_mask.mean():.1%}{took}, {done.report}"
    click.echo(f"{job.output}: {line}", err=job.output == PIPE)


def _run_folder(
    photographs: Path,
    mask: Path | None,
    output: Path,
    rules: HoleRules,
    most_pixels: int,
    model: Path | None,
    backend: str,
    threads: int,
    *,
    overwrite: bool,
) -> None:
    from PIL import AvifImagePlugin
    from tqdm import tqdm

    from cisi_runtime.errors import CisiError, DataError
    from cisi_runtime.files import remove_left_over
    from cisi_runtime.folders import default_threads, plan_jobs, run_jobs
    from cisi_runtime.jobs import run_job

    if mask is not None and not mask.exists():
        raise DataError(f"--mask: {mask}: no such file or folder")
    with option("--output"):
        jobs, faults = plan_jobs(photographs, mask, output)
    remove_left_over(output)
    waiting = jobs if overwrite else [job for job in jobs if not job.output.exists()]
    workers = threads or default_threads()
    if waiting:
        # A photograph a worker, with one thread for its network and its file; in OpenVINO they take turns.
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
        inpainter, warning = _open(model, backend, workers if backend == "openvino" else 1)
        for line in (warning, inpainter.chosen):
            if line is not None:
                click.echo(line, err=True)

    def one(job: Job) -> Finished:
        return run_job(job, lambda: inpainter, rules, most_pixels)

    unplanned = len(faults)
    largest, without_hole = (0, ""), 0
    for job, done in tqdm(run_jobs(waiting, one, workers), total=len(waiting), unit="image", mininterval=0.5):
        if isinstance(done, CisiError):
            faults.append(str(done) if str(job.image) in str(done) else f"{job.image}: {done}")
        else:
            without_hole += not done.hole_mask.any()
            largest = max(largest, (done.change, str(job.output)))
            if ", not kept: " in done.report:
                tqdm.write(f"{job.output}: {done.report}", file=sys.stderr)
    written, there = len(waiting) - (len(faults) - unplanned), len(jobs) - len(waiting)
    for fault in faults:
        click.echo(fault, err=True)
    click.echo(f"{output}: {written} written, {there} there already, {len(faults)} failed")
    if without_hole:
        click.echo(f"{without_hole} of them without a hole: copied, or converted")
    if largest[0]:
        click.echo(f"known pixels changed by at most {largest[0]} of 255, by a lossy format ({largest[1]})")
    if faults:
        raise DataError(f"{photographs}: {len(faults)} photographs failed, named above; the others are done")


def _open(model: Path | None, backend: str, threads: int) -> tuple[Inpainter, str | None]:
    """The network, and a warning where this CPU could not be checked."""
    from cisi_runtime.inpainter import SHIPPED_GRAPH, Inpainter
    from cisi_runtime.self_check import check_on_this_cpu

    with option("--model"):
        inpainter = Inpainter(model or SHIPPED_GRAPH, backend, threads=threads)
        warning = check_on_this_cpu(inpainter.backend, model or SHIPPED_GRAPH)
    return inpainter, None if warning is None else f"warning: {warning}"


def main() -> None:
    """Entry point of `cisi-run`."""
    run_command(run, "cisi-run")
