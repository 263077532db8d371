"""Picture sheets: pictures side by side, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_GAP = 4


def show_hole(rgb: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
    """The picture `[H, W, 3]` with its hole `[H, W]` in mid-grey, as the network sees it."""
    return np.where(hole_mask[..., None], np.uint8(128), rgb)


def picture_sheet(rows: Sequence[Sequence[UInt8Array]]) -> UInt8Array:
    """Rows of pictures `[H, W, 3]`, all of one size within a row, on white."""
    height = sum(row[0].shape[0] + _GAP for row in rows) + _GAP
    width = max(sum(picture.shape[1] + _GAP for picture in row) for row in rows) + _GAP
    sheet = np.full((height, width, 3), 255, dtype=np.uint8)
    top = _GAP
    for row in rows:
        left = _GAP
        for picture in row:
            sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
            left += picture.shape[1] + _GAP
        top += row[0].shape[0] + _GAP
    return sheet
