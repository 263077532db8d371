"""Holes grouped into windows for the network, so that the cost follows the holes and not the photograph."""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np
import numpy.typing as npt

from cisi_runtime.inpainting.blocks import any_in_blocks

BoolArray = npt.NDArray[np.bool_]

# Side of the blocks in which holes are grouped, in pixels. Holes in neighbouring blocks are one hole.
BLOCK = 16
# Window side / hole side. 2.0 matches the centre hole of training.
_CONTEXT = 2.0
# Hole area / area of its bounding square, in blocks. Below this it is a scratch or a wire, and is filled in pieces: one
# window would reduce it too far. At 0.4 a balloon of 300x115 pixels in the corner of a sky was cut in two, and both
# halves showed. Over 15 strokes and rectangles in 640x640 pixels 0.4, 0.3 and 0.25 gave 22.27, 22.31 and 22.16 dB.
_THIN = 0.3
# A thin hole whose window is reduced by no more than this factor stays in one piece.
_MAX_REDUCTION = 1.5


@dataclasses.dataclass(frozen=True)
class Window:
    """A rectangle of the picture that the network looks at, and the part of it that is filled.

    top, left, bottom, right: of the rectangle; bottom and right are exclusive.
    fill: top, left, bottom, right of the part whose hole pixels are filled; inside the rectangle.
    round: windows of one round do not see each other's results. Those of a later round do.
    """

    top: int
    left: int
    bottom: int
    right: int
    fill: tuple[int, int, int, int]
    round: int

    @property
    def rows(self) -> slice:
        """Rows of the picture."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Columns of the picture."""
        return slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.bottom - self.top, self.right - self.left


def plan_windows(hole_mask: BoolArray, side: int) -> list[Window]:
    """Windows whose fills cover every hole pixel of `[H, W]`.

    Each has context around its hole. It is square where the picture allows it, and at least `side` pixels long or as
    long as the picture. A picture of at most `side` pixels is one window.
    """
    height, width = hole_mask.shape
    if not hole_mask.any():
        return []
    if max(height, width) <= side:
        return [Window(0, 0, height, width, (0, 0, height, width), 0)]
    pieces = []
    for group in _groups(any_in_blocks(hole_mask, BLOCK)):
        window_side = (np.ptp(group, axis=0).max() + 1) * BLOCK * _CONTEXT
        is_small = window_side <= _MAX_REDUCTION * side
        for number, piece in enumerate([group] if is_small else _split(group, side)):
            pieces.append((number, piece))
    windows = [_window(piece, number, hole_mask.shape, side) for number, piece in pieces]
    return _without_covered(windows)


def _groups(holes: BoolArray) -> list[npt.NDArray[np.intp]]:
    """Blocks that touch, also at corners, as `[N, 2]` rows and columns; in reading order of their first block."""
    remaining = set(zip(*(axis.tolist() for axis in np.nonzero(holes)), strict=True))
    groups = []
    for start in sorted(remaining):
        if start not in remaining:
            continue
        remaining.discard(start)
        members, queue = [start], deque([start])
        while queue:
            row, column = queue.popleft()
            for neighbour in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if neighbour in remaining:
                    remaining.discard(neighbour)
                    members.append(neighbour)
                    queue.append(neighbour)
        groups.append(np.array(sorted(members), dtype=np.intp))
    return groups


def _split(group: npt.NDArray[np.intp], side: int) -> list[npt.NDArray[np.intp]]:
    """Halve a thin group along its longer axis until each piece fits or is no longer thin."""
    extent = np.ptp(group, axis=0) + 1
    longest = int(extent.max())
    if longest * BLOCK * _CONTEXT <= side or len(group) >= _THIN * longest**2:
        return [group]
    axis = int(extent.argmax())
    middle = group[:, axis].min() + longest // 2
    is_first = group[:, axis] < middle
    return [piece for half in (group[is_first], group[~is_first]) if len(half) for piece in _split(half, side)]


def _window(piece: npt.NDArray[np.intp], number: int, shape: tuple[int, ...], side: int) -> Window:
    low, high = piece.min(axis=0) * BLOCK, np.minimum((piece.max(axis=0) + 1) * BLOCK, shape[:2])
    length = max(side, int(np.ceil((high - low).max() * _CONTEXT)))
    starts, ends = [], []
    for axis in (0, 1):
        extent = min(length, shape[axis])
        start = int(np.clip((low[axis] + high[axis] - extent) // 2, 0, shape[axis] - extent))
        starts.append(start)
        ends.append(start + extent)
    fill = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    return Window(starts[0], starts[1], ends[0], ends[1], fill, number)


def _without_covered(windows: list[Window]) -> list[Window]:
    """Drop windows whose fill lies well inside another window of the same length: that one fills it too."""
    result: list[Window] = []
    # Indices into `result`, by length and cell of a grid of that length: only windows in neighbouring cells can cover
    # each other.
    cells: dict[tuple[int, int, int], list[int]] = {}
    for window in sorted(windows, key=lambda w: (w.round, -max(w.shape), w.top, w.left)):
        length = max(window.shape)
        row, column = window.top // length, window.left // length
        around = [(length, row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        for index in sorted(index for cell in around for index in cells.get(cell, ())):
            other = result[index]
            if other.round == window.round == 0 and _is_well_inside(window, other):
                low = [min(pair) for pair in zip(other.fill[:2], window.fill[:2], strict=True)]
                high = [max(pair) for pair in zip(other.fill[2:], window.fill[2:], strict=True)]
                result[index] = dataclasses.replace(other, fill=(low[0], low[1], high[0], high[1]))
                break
        else:
            cells.setdefault((length, row, column), []).append(len(result))
            result.append(window)
    return result


def _is_well_inside(window: Window, other: Window) -> bool:
    """Whether a window's fill keeps an eighth of the other window's length from its edges, and both are as long."""
    rows, columns = (side // 8 for side in other.shape)
    top, left, bottom, right = window.fill
    return (
        max(window.shape) == max(other.shape)
        and top >= other.top + rows
        and left >= other.left + columns
        and bottom <= other.bottom - rows
        and right <= other.right - columns
    )
