"""Picture sheets: pictures side by side, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_GAP = 4
# Height of the captions above a row, and of their letters.
_CAPTION, _LETTERS = 16, 11


def show_hole(rgb: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
    """The picture `[H, W, 3]` with its hole `[H, W]` in mid-grey, as the network sees it."""
    return np.where(hole_mask[..., None], np.uint8(128), rgb)


def picture_sheet(rows: Sequence[Sequence[UInt8Array]], captions: Sequence[Sequence[str]]) -> UInt8Array:
    """Rows of pictures `[H, W, 3]`, all of one size within a row, on white, each below its caption.

    captions: for each row, what its pictures are.
    """
    bands = [
        _side_by_side([_captioned(*pair) for pair in zip(*row, strict=True)])
        for row in zip(rows, captions, strict=True)
    ]
    height = sum(band.shape[0] + _GAP for band in bands) + _GAP
    sheet = np.full((height, max(band.shape[1] for band in bands), 3), 255, dtype=np.uint8)
    top = _GAP
    for band in bands:
        sheet[top : top + band.shape[0], : band.shape[1]] = band
        top += band.shape[0] + _GAP
    return sheet


def _side_by_side(pictures: Sequence[UInt8Array]) -> UInt8Array:
    gap = np.full((pictures[0].shape[0], _GAP, 3), 255, dtype=np.uint8)
    return np.concatenate([gap] + [part for picture in pictures for part in (picture, gap)], axis=1)


def _captioned(picture: UInt8Array, caption: str) -> UInt8Array:
    """The picture below a line of text, and as wide as that if it is narrower."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(_LETTERS)
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (max(width, int(font.getlength(caption)) + 1), _CAPTION + height), "white")
    ImageDraw.Draw(canvas).text((0, 1), caption, fill="black", font=font)
    canvas.paste(Image.fromarray(picture), (0, _CAPTION))
    return np.asarray(canvas)
