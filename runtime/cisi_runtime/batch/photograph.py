"""One photograph, from the bytes of its file to the bytes of the completed file."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from cisi_runtime.contract import MASK_THRESHOLD
from cisi_runtime.errors import MaskError, error_prefix
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.pictures.masks import dilated
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.reading import MAX_PIXELS, check_mask_size, decode_mask, decode_picture
from cisi_runtime.pictures.writing import NO_ALPHA, check_alpha, dropped_metadata, encode_picture, largest_change

BoolArray = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class EncodedPicture:
    """The bytes of a picture file. name: for messages."""

    data: bytes
    name: str


@dataclasses.dataclass(frozen=True)
class HoleOptions:
    """How a mask becomes a hole. invert: black is the hole. dilate: pixels by which the hole grows."""

    invert: bool = False
    dilate: int = 0


@dataclasses.dataclass(frozen=True)
class PhotographOptions:
    """How photographs are read. hole: see `HoleOptions`. max_pixels: larger photographs are refused."""

    hole: HoleOptions = HoleOptions()
    max_pixels: int = MAX_PIXELS


DEFAULT_OPTIONS = PhotographOptions()


@dataclasses.dataclass(frozen=True)
class Labels:
    """What stands before an error: the option, or the field of a form, that brought the photograph, the mask, the wish
    to take the hole from alpha, and the output."""

    image: str = "IMAGE"
    mask: str = "--mask"
    alpha: str = "--mask-from-alpha"
    output: str = "--output"


COMMAND_LINE = Labels()


@dataclasses.dataclass(frozen=True)
class CompletedPhotograph:
    """What became of a photograph.

    picture: as it was read.
    hole_mask: bool `[H, W]`.
    completed: the picture that `data` holds.
    data: the bytes of the completed file.
    format: its format, by Pillow's name.
    milliseconds: of the inpainting itself.
    change: largest change of a known pixel, in grey levels.
    dropped: for people, what the photograph's file held and the completed file does not.
    notes: for people who want to know more.
    """

    picture: Picture
    hole_mask: BoolArray
    completed: Picture
    data: bytes
    format: str
    milliseconds: float
    change: int
    dropped: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def report(self) -> str:
        """For people, what there is to know about the result."""
        if not self.hole_mask.any():
            assert self.picture.origin is not None
            same = self.format == self.picture.origin.format
            how = "copied as it is" if same else f"only converted to {self.format}"
            report = f"the mask has no hole: the picture is {how}"
            if self.change:
                report += f", which changed pixels by at most {self.change} of 255"
        else:
            report = self._known_pixels()
        return f"{report}, not kept: {', '.join(self.dropped)}" if self.dropped else report

    def _known_pixels(self) -> str:
        return (
            f"known pixels changed by at most {self.change} of 255 by {self.format}"
            if self.change
            else "known pixels identical"
        )


def complete_photograph(
    image: EncodedPicture,
    mask: EncodedPicture | None,
    inpainter: Callable[[], Inpainter],
    options: PhotographOptions = DEFAULT_OPTIONS,
    *,
    output: str,
    output_format: str | None = None,
    timer: StageTimer | None = None,
    labels: Labels = COMMAND_LINE,
) -> CompletedPhotograph:
    """Decode, fill and encode.

    mask: None: what is transparent is the hole, and becomes opaque.
    inpainter: called once both pictures have been decoded.
    output: name of the result, for messages. output_format: Pillow's name; None: that of the photograph.
    timer: gets the time of each stage.

    A picture without a hole that stays in its format is returned byte by byte. Raises PictureError, OutputError and
    what the inpainter raises, with a label in front.
    """
    timer = StageTimer() if timer is None else timer
    # The mask is decoded beside the photograph.
    with timer("decode"), ThreadPoolExecutor(1) as pool:
        decoding = None
        if mask is not None:
            decoding = pool.submit(decode_mask, mask.data, mask.name, max(MAX_PIXELS, options.max_pixels))
        with error_prefix(labels.image):
            picture = decode_picture(image.data, image.name, options.max_pixels)
        hole_mask = _hole_mask(picture, image, mask, decoding, options.hole, labels)
    if mask is None and picture.alpha is not None:
        picture = dataclasses.replace(picture, alpha=np.where(hole_mask, np.uint8(255), picture.alpha))
    assert picture.origin is not None  # it comes from a file
    input_format = picture.origin.format
    output_format = output_format or input_format
    if mask is None and picture.alpha is not None and output_format in NO_ALPHA and (picture.alpha == 255).all():
        picture = dataclasses.replace(picture, alpha=None)  # nothing of it is left
    with error_prefix(labels.output):
        check_alpha(output_format, output, has_alpha=picture.alpha is not None)
    inpaint = inpainter()
    if not hole_mask.any():
        data, change, dropped = image.data, 0, []
        if output_format != input_format:
            with error_prefix(labels.output):
                data = encode_picture(picture, output_format, output)
            change = largest_change(picture, data, output_format, hole_mask)
            dropped = dropped_metadata(picture, output_format)
        return CompletedPhotograph(picture, hole_mask, picture, data, output_format, 0.0, change, tuple(dropped))
    start = time.perf_counter()
    completed = dataclasses.replace(picture, rgb=inpaint(picture.rgb, hole_mask, timer))
    milliseconds = 1000.0 * (time.perf_counter() - start)
    with error_prefix(labels.output), timer("encode"):
        data = encode_picture(completed, output_format, output)
    with timer("check"):
        change = largest_change(completed, data, output_format, hole_mask)
    dropped = dropped_metadata(picture, output_format)
    return CompletedPhotograph(
        picture, hole_mask, completed, data, output_format, milliseconds, change, tuple(dropped), tuple(timer.notes)
    )


def _hole_mask(
    picture: Picture,
    image: EncodedPicture,
    mask: EncodedPicture | None,
    decoding: Future[BoolArray] | None,
    options: HoleOptions,
    labels: Labels,
) -> BoolArray:
    if mask is None or decoding is None:
        if picture.alpha is None:
            raise MaskError(f"{labels.alpha}: {image.name}: has no alpha channel")
        hole_mask: BoolArray = picture.alpha < MASK_THRESHOLD
    else:
        with error_prefix(labels.mask):
            hole_mask = decoding.result()
            check_mask_size(hole_mask.shape, mask.name, picture.size)
    if options.invert:
        hole_mask = ~hole_mask
    return dilated(hole_mask, min(options.dilate, max(hole_mask.shape))) if options.dilate else hole_mask
