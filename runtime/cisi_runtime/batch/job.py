"""One photograph from file to file."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cisi_runtime.contract import MASK_THRESHOLD
from cisi_runtime.errors import OutputError, PictureError, error_prefix
from cisi_runtime.files import atomic_file, check_writable
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.pictures.masks import dilated
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.reading import MAX_PIXELS, check_mask_size, decode_mask, decode_picture, read_file
from cisi_runtime.pictures.writing import (
    check_output_format,
    dropped_metadata,
    encode_picture,
    format_of,
    largest_change,
)

BoolArray = npt.NDArray[np.bool_]

# The name that stands for standard input and standard output.
PIPE = Path("-")


@dataclasses.dataclass(frozen=True)
class Job:
    """A photograph, its mask and the file to write; each may be PIPE. mask None: what is transparent is the hole."""

    image: Path
    mask: Path | None
    output: Path


@dataclasses.dataclass(frozen=True)
class HoleOptions:
    """How a mask becomes a hole. invert: black is the hole. dilate: pixels by which the hole grows."""

    invert: bool = False
    dilate: int = 0


@dataclasses.dataclass(frozen=True)
class JobOptions:
    """How photographs are read. hole: see `HoleOptions`. max_pixels: larger photographs are refused."""

    hole: HoleOptions = HoleOptions()
    max_pixels: int = MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class JobSummary:
    """What a job did, without its pictures.

    has_hole: False where the mask had none.
    change: largest change of a known pixel, in grey levels.
    report: for people, what there is to know about the result.
    notes: for people who want to know more.
    """

    has_hole: bool
    change: int
    report: str
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class JobResult:
    """What a job did.

    picture: as it was read.
    hole_mask: bool `[H, W]`.
    completed: the picture that was written.
    milliseconds: of the inpainting itself.
    change: largest change of a known pixel, in grey levels.
    report: for people, what there is to know about the result.
    notes: for people who want to know more.
    """

    picture: Picture
    hole_mask: BoolArray
    completed: Picture
    milliseconds: float
    change: int
    report: str
    notes: tuple[str, ...] = ()

    def summary(self) -> JobSummary:
        """The same without pictures."""
        return JobSummary(bool(self.hole_mask.any()), self.change, self.report, self.notes)


def run_job(
    job: Job,
    inpainter: Callable[[], Inpainter],
    options: JobOptions = JobOptions(),
    timer: StageTimer | None = None,
) -> JobResult:
    """Read, fill, encode, and write the file completely or not at all.

    inpainter: called once both files have been read.
    timer: gets the time of each stage.

    A picture without a hole that stays in its format is copied byte by byte. Raises PictureError, OutputError and what
    the inpainter raises, with the name of the option in front.
    """
    timer = StageTimer() if timer is None else timer
    with error_prefix("--output"):
        _check_output(job)
    # The mask is decoded beside the photograph. Both are read here: a pipe may keep its reader waiting.
    with timer("decode"), ThreadPoolExecutor(1) as pool:
        with error_prefix("IMAGE"):
            data = _read(job.image)
        mask = _start_mask(job, options.max_pixels, pool)
        with error_prefix("IMAGE"):
            picture = decode_picture(data, _name(job.image, "standard input"), options.max_pixels)
        hole_mask = _hole_mask(job, picture, mask, options.hole)
    if job.mask is None and picture.alpha is not None:
        picture = dataclasses.replace(picture, alpha=np.where(hole_mask, np.uint8(255), picture.alpha))
    assert picture.origin is not None  # it comes from a file
    input_format = picture.origin.format
    output_format = input_format if job.output == PIPE else format_of(job.output)
    with error_prefix("--output"):
        if job.output != PIPE:
            check_output_format(job.output, has_alpha=picture.alpha is not None)
    inpaint = inpainter()
    if not hole_mask.any():
        how = "copied as it is" if output_format == input_format else f"only converted to {output_format}"
        with error_prefix("--output"):
            if output_format != input_format:
                data = encode_picture(picture, output_format, str(job.output))
            _write(job.output, data)
        return JobResult(picture, hole_mask, picture, 0.0, 0, f"the mask has no hole: the picture is {how}")
    del data
    start = time.perf_counter()
    completed = dataclasses.replace(picture, rgb=inpaint(picture.rgb, hole_mask, timer))
    milliseconds = 1000.0 * (time.perf_counter() - start)
    change = _write_completed(job, completed, output_format, hole_mask, timer)
    report = _report(picture, output_format, change)
    return JobResult(picture, hole_mask, completed, milliseconds, change, report, tuple(timer.notes))


def refuse_original(job: Job, output: Path) -> None:
    """Raise OutputError for an output that is the job's photograph or its mask, under whatever name."""
    for path, what in ((job.image, "photograph"), (job.mask, "mask")):
        if path is not None and path != PIPE and path.exists() and output.exists() and output.samefile(path):
            raise OutputError(f"{output}: is the {what} itself, expected another file: an original is kept")


def _write_completed(job: Job, completed: Picture, output_format: str, hole_mask: BoolArray, timer: StageTimer) -> int:
    """Encode, check and write. Returns the largest change of a known pixel."""
    with error_prefix("--output"), timer("encode"):
        encoded = encode_picture(completed, output_format, _name(job.output, "standard output"))
    with timer("check"):
        change = largest_change(completed, encoded, output_format, hole_mask)
    with error_prefix("--output"), timer("encode"):
        _write(job.output, encoded)
    return change


def _report(picture: Picture, output_format: str, change: int) -> str:
    report = (
        f"known pixels changed by at most {change} of 255 by {output_format}" if change else "known pixels identical"
    )
    dropped = dropped_metadata(picture, output_format)
    return f"{report}, not kept: {', '.join(dropped)}" if dropped else report


def _start_mask(job: Job, max_pixels: int, pool: Executor) -> Future[BoolArray] | None:
    if job.mask is None:
        return None
    with error_prefix("--mask"):
        data = _read(job.mask)
    return pool.submit(decode_mask, data, _name(job.mask, "standard input"), max(MAX_PIXELS, max_pixels))


def _hole_mask(job: Job, picture: Picture, mask: Future[BoolArray] | None, options: HoleOptions) -> BoolArray:
    if mask is None:
        if picture.alpha is None:
            raise PictureError(f"--mask-from-alpha: {_name(job.image, 'standard input')}: has no alpha channel")
        hole_mask: BoolArray = picture.alpha < MASK_THRESHOLD
    else:
        assert job.mask is not None
        with error_prefix("--mask"):
            hole_mask = mask.result()
            check_mask_size(hole_mask, _name(job.mask, "standard input"), picture.size)
    if options.invert:
        hole_mask = ~hole_mask
    return dilated(hole_mask, min(options.dilate, max(hole_mask.shape))) if options.dilate else hole_mask


def _check_output(job: Job) -> None:
    """Everything that can be known before a file is read."""
    if job.output == PIPE:
        if sys.stdout is None or sys.stdout.isatty():
            raise OutputError("-: standard output is closed or a terminal, expected a pipe or a file")
        return
    check_output_format(job.output)
    check_writable(job.output)
    refuse_original(job, job.output)


def _name(path: Path, pipe: str) -> str:
    return pipe if path == PIPE else str(path)


def _read(path: Path) -> bytes:
    if path != PIPE:
        return read_file(path)
    if sys.stdin is None:
        raise PictureError("standard input is closed, expected a picture file")
    return sys.stdin.buffer.read()


def _write(path: Path, data: bytes) -> None:
    if path == PIPE:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)
