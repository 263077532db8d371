"""One photograph from file to file."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cisi_runtime.command import option
from cisi_runtime.contract import MASK_THRESHOLD
from cisi_runtime.errors import OutputError, PictureError
from cisi_runtime.files import check_writable, whole_file
from cisi_runtime.inpainter import Inpainter
from cisi_runtime.masks import dilated
from cisi_runtime.pictures import MOST_PIXELS, Picture, decode_mask, decode_picture, read_file
from cisi_runtime.stages import Stages
from cisi_runtime.writing import check_output_format, encode_picture, format_of, largest_change, left_out

BoolArray = npt.NDArray[np.bool_]

# The name that stands for standard input and standard output.
PIPE = Path("-")


@dataclasses.dataclass(frozen=True)
class Job:
    """A photograph, its mask (None: what is transparent in the photograph) and the file to write; each may be PIPE."""

    image: Path
    mask: Path | None
    output: Path


@dataclasses.dataclass(frozen=True)
class HoleRules:
    """What becomes of a mask before it is a hole. dilate: pixels by which it grows."""

    invert: bool = False
    dilate: int = 0


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a job did. completed: the picture that was written; milliseconds: those of the inpainting itself; change: by
    how many grey levels known pixels changed at most; report: what there is to know about the result, for people."""

    picture: Picture
    hole_mask: BoolArray
    completed: Picture
    milliseconds: float
    change: int
    report: str


def run_job(
    job: Job,
    inpainter: Callable[[], Inpainter],
    rules: HoleRules = HoleRules(),
    most_pixels: int = MOST_PIXELS,
    stages: Stages | None = None,
) -> Finished:
    """Read, fill, encode, write whole or not at all. `inpainter` is called when both files have been read; stages:
    gets the time of each stage.

    A picture without a hole whose format is to stay is copied byte by byte. Raises PictureError and OutputError, and
    what the inpainter raises, with the name of the option in front.
    """
    stages = Stages() if stages is None else stages
    with option("--output"):
        _check_output(job)
    with stages("decode"):
        with option("IMAGE"):
            data = _read(job.image)
            picture = decode_picture(data, _name(job.image, "standard input"), most_pixels)
        hole_mask = _hole_mask(job, picture, rules)
    if job.mask is None and picture.alpha is not None:
        picture = dataclasses.replace(picture, alpha=np.where(hole_mask, np.uint8(255), picture.alpha))
    assert picture.origin is not None  # it comes from a file
    own_format = picture.origin.format
    file_format = own_format if job.output == PIPE else format_of(job.output)
    with option("--output"):
        if job.output != PIPE:
            check_output_format(job.output, has_alpha=picture.alpha is not None)
    fill = inpainter()
    if not hole_mask.any():
        is_copied = file_format == own_format
        if not is_copied:
            with option("--output"):
                data = encode_picture(picture, file_format, str(job.output))
        how = "copied as it is" if is_copied else f"only converted to {file_format}"
        with option("--output"):
            _write(job.output, data)
        return Finished(picture, hole_mask, picture, 0.0, 0, f"the mask has no hole: the picture is {how}")
    del data
    start = time.perf_counter()
    completed = dataclasses.replace(picture, rgb=fill(picture.rgb, hole_mask, stages))
    milliseconds = 1000.0 * (time.perf_counter() - start)
    with option("--output"), stages("encode"):
        encoded = encode_picture(completed, file_format, _name(job.output, "standard output"))
    with stages("check"):
        change = largest_change(completed, encoded, file_format, hole_mask)
    with option("--output"), stages("encode"):
        _write(job.output, encoded)
    report = f"known pixels changed by at most {change} of 255 by {file_format}" if change else "known pixels identical"
    lost = left_out(picture, file_format)
    if lost:
        report += f", not kept: {', '.join(lost)}"
    return Finished(picture, hole_mask, completed, milliseconds, change, report)


def _hole_mask(job: Job, picture: Picture, rules: HoleRules) -> BoolArray:
    if job.mask is None:
        if picture.alpha is None:
            raise PictureError(f"--mask-from-alpha: {_name(job.image, 'standard input')}: has no alpha channel")
        hole_mask: BoolArray = picture.alpha < MASK_THRESHOLD
    else:
        with option("--mask"):
            hole_mask = decode_mask(_read(job.mask), _name(job.mask, "standard input"), picture.size)
    if rules.invert:
        hole_mask = ~hole_mask
    return dilated(hole_mask, min(rules.dilate, max(hole_mask.shape))) if rules.dilate else hole_mask


def _check_output(job: Job) -> None:
    """What can be known before anything is read."""
    if job.output == PIPE:
        if sys.stdout is None or sys.stdout.isatty():
            raise OutputError("-: standard output is closed or a terminal, expected a pipe or a file")
        return
    check_output_format(job.output)
    check_writable(job.output)
    refuse_original(job, job.output)


def refuse_original(job: Job, output: Path) -> None:
    """Raise OutputError for an output that is the job's photograph or its mask, under whatever name."""
    for path, what in ((job.image, "photograph"), (job.mask, "mask")):
        if path is not None and path != PIPE and path.exists() and output.exists() and output.samefile(path):
            raise OutputError(f"{output}: is the {what} itself, expected another file: an original is kept")


def _name(path: Path, pipe: str) -> str:
    return pipe if path == PIPE else str(path)


def _read(path: Path) -> bytes:
    if path != PIPE:
        return read_file(path)
    if sys.stdin is None:
        raise PictureError("standard input is closed, expected a picture's file")
    return sys.stdin.buffer.read()


def _write(path: Path, data: bytes) -> None:
    if path == PIPE:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        with whole_file(path) as temporary:
            temporary.write_bytes(data)
