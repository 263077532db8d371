"""A process that works on photographs, one at a time: it decodes, plans windows, adds detail and encodes. The network
is in another process.

A file that crashes a decoder, or takes all memory, ends this process and the request that brought it, nothing else.
"""

from __future__ import annotations

import dataclasses
import gc
import signal
from multiprocessing.connection import Connection
from typing import Any

from cisi_runtime.allocator import release_memory
from cisi_runtime.backends.cores import limit_cores
from cisi_runtime.batch.photograph import EncodedPicture, Labels, PhotographOptions, complete_photograph
from cisi_runtime.child_process import prepare_child
from cisi_runtime.errors import CisiError, GraphError, TooManyPixelsError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.pillow import one_thread_a_file, prepare_for_photographs
from cisi_runtime.pictures.reading import decode_picture
from cisi_runtime.pictures.writing import encode_picture
from cisi_runtime.serve.remote_network import NetworkLostError, RemoteNetwork

# Photographs from this size on leave so much memory behind that it is given back, which costs the next one some time.
_LARGE_PIXELS = 4_000_000
# Fields of a form, as errors name them.
FIELDS = Labels(image="image", mask="mask", alpha="mask_from_alpha", output="format")


@dataclasses.dataclass(frozen=True)
class InpaintTask:
    """A photograph to complete.

    mask: None: its transparency is the hole.
    detail: whether the fill gets texture.
    output_format: Pillow's name; None: that of the photograph.
    """

    image: EncodedPicture
    mask: EncodedPicture | None
    options: PhotographOptions
    detail: bool = True
    output_format: str | None = None


@dataclasses.dataclass(frozen=True)
class PreviewTask:
    """A photograph to show in a browser: its upright pixels as PNG."""

    image: EncodedPicture
    max_pixels: int


@dataclasses.dataclass(frozen=True)
class InpaintOutcome:
    """A completed photograph.

    data: the bytes of its file. format: Pillow's name. width, height: of the upright picture.
    hole: share of the picture that was filled. change: largest change of a known pixel, in grey levels.
    dropped: for people, what the photograph's file held and this one does not.
    report, notes: for people. milliseconds: by stage.
    """

    data: bytes
    format: str
    width: int
    height: int
    hole: float
    change: int
    dropped: tuple[str, ...]
    report: str
    notes: tuple[str, ...]
    milliseconds: dict[str, float]


class CancelledTaskError(CisiError):
    """Nobody waits for the result any more."""


def run_photographs(address: str, key: bytes, cancelled: Any, parent: Connection) -> None:
    """Main function of the process. Its parent sends numbered tasks; it answers each with its outcome, or with the
    CisiError that ended it. cancelled: number of the task that nobody waits for any more, in shared memory."""
    prepare_child(signal.SIGINT, signal.SIGTERM)
    prepare_for_photographs()
    one_thread_a_file()
    limit_cores(1)
    number = 0

    def stop_if_cancelled() -> None:
        if cancelled.value == number:
            raise CancelledTaskError("cancelled")

    try:
        network = RemoteNetwork(address, key, stop_if_cancelled)
    except NetworkLostError:
        return  # it has just ended: this process is started again
    inpainters = {detail: Inpainter(network, detail=detail) for detail in (False, True)}
    parent.send("ready")
    while True:
        try:
            number, task = parent.recv()
        except EOFError:
            return
        outcome = _outcome(task, inpainters)
        parent.send(outcome)
        is_large = isinstance(outcome, InpaintOutcome) and outcome.width * outcome.height > _LARGE_PIXELS
        del task, outcome
        # Pictures in reference cycles, such as those of a traceback, would stay until the next large one comes.
        gc.collect()
        if is_large:
            release_memory()


def _outcome(task: InpaintTask | PreviewTask, inpainters: dict[bool, Inpainter]) -> InpaintOutcome | bytes | CisiError:
    try:
        return _preview(task) if isinstance(task, PreviewTask) else _complete(task, inpainters[task.detail])
    except NetworkLostError as error:
        return NetworkLostError(str(error))
    except CisiError as error:
        return error.with_traceback(None)
    except MemoryError:
        return TooManyPixelsError("image: there is not enough memory for it")
    except Exception as error:
        return GraphError(f"{type(error).__name__}: {error}")


def _complete(task: InpaintTask, inpainter: Inpainter) -> InpaintOutcome:
    timer = StageTimer()
    done = complete_photograph(
        task.image,
        task.mask,
        lambda: inpainter,
        task.options,
        output="the result",
        output_format=task.output_format,
        timer=timer,
        labels=FIELDS,
    )
    height, width = done.picture.size
    return InpaintOutcome(
        done.data,
        done.format,
        width,
        height,
        float(done.hole_mask.mean()),
        done.change,
        done.dropped,
        done.report,
        done.notes,
        timer.milliseconds,
    )


def _preview(task: PreviewTask) -> bytes:
    picture = decode_picture(task.image.data, task.image.name, task.max_pixels)
    return encode_picture(Picture(picture.rgb, picture.alpha), "PNG", "preview")
