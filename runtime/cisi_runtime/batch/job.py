"""One photograph from file to file."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

from cisi_runtime.batch.photograph import (
    COMMAND_LINE,
    DEFAULT_OPTIONS,
    CompletedPhotograph,
    EncodedPicture,
    PhotographOptions,
    complete_photograph,
)
from cisi_runtime.console import stdout_errors
from cisi_runtime.errors import NO_MEMORY, CisiError, DataError, OutputError, PictureError, error_prefix
from cisi_runtime.files import check_writable
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.pictures.writing import format_of
from cisi_runtime.storage.access import is_same, read_address, write_address
from cisi_runtime.storage.addresses import Address

# The name that stands for standard input and standard output.
PIPE = Path("-")
# A larger fraction of hole is said to be one: the mask may be the wrong way round.
LARGE_HOLE = 0.75
LARGE_HOLE_WARNING = "more than three quarters of the picture is hole; is the mask the wrong way round (--invert-mask)?"


@dataclasses.dataclass(frozen=True)
class Job:
    """A photograph, its mask and the file to write; each may be PIPE. mask None: what is transparent is the hole."""

    image: Address
    mask: Address | None
    output: Address


@dataclasses.dataclass(frozen=True)
class JobSummary:
    """What a job did, without its pictures.

    hole_fraction: of the picture; 0 where the mask had no hole.
    change: largest change of a known pixel, in grey levels.
    report: for people, what there is to know about the result.
    notes: for people who want to know more.
    """

    hole_fraction: float
    change: int
    report: str
    notes: tuple[str, ...] = ()


def run_job(
    job: Job,
    inpainter: Callable[[], Inpainter],
    options: PhotographOptions = DEFAULT_OPTIONS,
    timer: StageTimer | None = None,
) -> CompletedPhotograph:
    """Read, fill, encode, and write the file completely or not at all.

    inpainter: called once both files have been read.
    timer: gets the time of each stage.

    A picture without a hole that stays in its format is copied byte by byte. Raises PictureError, OutputError and what
    the inpainter raises, with the name of the option in front.
    """
    timer = StageTimer() if timer is None else timer
    with error_prefix(COMMAND_LINE.output):
        _check_output(job)
    # Both are read first: a pipe may keep its reader waiting.
    with timer("decode"):
        with error_prefix(COMMAND_LINE.image):
            image = _read(job.image)
        with error_prefix(COMMAND_LINE.mask):
            mask = None if job.mask is None else _read(job.mask)
    done = complete_photograph(
        image,
        mask,
        inpainter,
        options,
        output=_name(job.output, "standard output"),
        output_format=None if job.output == PIPE else format_of(str(job.output)),
        timer=timer,
    )
    with error_prefix(COMMAND_LINE.output), timer("encode"):
        _write(job.output, done.data)
    return done


def summarise(done: CompletedPhotograph) -> JobSummary:
    """The same without pictures."""
    return JobSummary(float(done.hole_mask.mean()), done.change, done.report, done.notes)


def attempt(job: Job, run: Callable[[Job], JobSummary]) -> JobSummary | CisiError:
    """What a job did, or the error that ended it: one bad file must not end a run of many."""
    try:
        return run(job)
    except CisiError as error:
        return error
    except MemoryError:
        return DataError(f"{job.image}: {NO_MEMORY}")
    except Exception as error:
        return DataError(f"{job.image}: {type(error).__name__}: {error}")


def refuse_original(job: Job, output: Address) -> None:
    """Raise OutputError for an output that is the job's photograph or its mask, under whatever name."""
    for address, what in ((job.image, "photograph"), (job.mask, "mask")):
        if address is not None and PIPE not in (address, output) and is_same(address, output):
            raise OutputError(f"{output}: is the {what} itself, expected another file: an original is kept")


def _check_output(job: Job) -> None:
    """Everything that can be known before a file is read."""
    if job.output == PIPE:
        if sys.stdout is None or sys.stdout.isatty():
            raise OutputError("-: standard output is closed or a terminal, expected a pipe or a file")
        return
    format_of(str(job.output))
    if isinstance(job.output, Path):
        check_writable(job.output)
    refuse_original(job, job.output)


def _name(address: Address, pipe: str) -> str:
    return pipe if address == PIPE else str(address)


def _read(address: Address) -> EncodedPicture:
    if address != PIPE:
        return EncodedPicture(read_address(address), str(address))
    if sys.stdin is None:
        raise PictureError("standard input is closed, expected a picture file")
    return EncodedPicture(sys.stdin.buffer.read(), "standard input")


def _write(address: Address, data: bytes) -> None:
    if address == PIPE:
        with stdout_errors():
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    else:
        write_address(address, data)
