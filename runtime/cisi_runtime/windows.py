"""Where to look: holes grouped into windows, so that the cost follows the holes and not the photograph."""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np
import numpy.typing as npt

from cisi_runtime.blocks import any_in_blocks

BoolArray = npt.NDArray[np.bool_]

# Holes are grouped in blocks of so many pixels: nearer ones are one hole.
BLOCK = 16
# A window is so many times as long as what it fills: the centre hole that networks are trained with.
_CONTEXT = 2.0
# What fills less than this part of its square, a scratch or a wire, is filled piece by piece: in one window it would be
# looked at from too far away.
_THIN = 0.4
# One that is seen this many times smaller, and not more, stays in one piece all the same.
_SMALLER = 1.5


@dataclasses.dataclass(frozen=True)
class Window:
    """Rows `top` to `bottom` and columns `left` to `right` of a picture, ends exclusive, and what is filled in it:
    the hole's pixels inside `fill` (top, left, bottom, right), which lies within. round: windows of one round know
    nothing of each other's results; those of a later one see them."""

    top: int
    left: int
    bottom: int
    right: int
    fill: tuple[int, int, int, int]
    round: int

    @property
    def rows(self) -> slice:
        """Of the picture."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Of the picture."""
        return slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.bottom - self.top, self.right - self.left


def plan_windows(hole_mask: BoolArray, side: int) -> list[Window]:
    """Windows whose fills cover every hole pixel of `[H, W]`, each with context around: square where the picture allows
    it, at least `side` pixels long, else as long as the picture. A picture of at most `side` is one window."""
    height, width = hole_mask.shape
    if not hole_mask.any():
        return []
    if max(height, width) <= side:
        return [Window(0, 0, height, width, (0, 0, height, width), 0)]
    pieces = []
    for group in _groups(any_in_blocks(hole_mask, BLOCK)):
        whole = (np.ptp(group, axis=0).max() + 1) * BLOCK * _CONTEXT <= _SMALLER * side
        for number, piece in enumerate([group] if whole else _split(group, side)):
            pieces.append((number, piece))
    windows = [_window(piece, number, hole_mask.shape, side) for number, piece in pieces]
    return _without_covered(windows)


def _groups(holes: BoolArray) -> list[npt.NDArray[np.intp]]:
    """Connected blocks, `[N, 2]` rows and columns, diagonals included; in reading order of their first block."""
    rest = set(zip(*(axis.tolist() for axis in np.nonzero(holes)), strict=True))
    groups = []
    for start in sorted(rest):
        if start not in rest:
            continue
        rest.discard(start)
        found, queue = [start], deque([start])
        while queue:
            row, column = queue.popleft()
            for other in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if other in rest:
                    rest.discard(other)
                    found.append(other)
                    queue.append(other)
        groups.append(np.array(sorted(found), dtype=np.intp))
    return groups


def _split(group: npt.NDArray[np.intp], side: int) -> list[npt.NDArray[np.intp]]:
    """A thin group in halves of its longer axis, again and again, until each fits or is no longer thin."""
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
        own = min(length, shape[axis])
        start = int(np.clip((low[axis] + high[axis] - own) // 2, 0, shape[axis] - own))
        starts.append(start)
        ends.append(start + own)
    fill = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    return Window(starts[0], starts[1], ends[0], ends[1], fill, number)


def _without_covered(windows: list[Window]) -> list[Window]:
    """Without those whose fill lies well inside another window of the same length: that one fills them too."""
    kept: list[Window] = []
    # Numbers of those that are kept, by length and place in a grid as wide: only neighbours can cover each other.
    places: dict[tuple[int, int, int], list[int]] = {}
    for window in sorted(windows, key=lambda one: (one.round, -max(one.shape), one.top, one.left)):
        length = max(window.shape)
        row, column = window.top // length, window.left // length
        around = [(length, row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        for index in sorted(index for place in around for index in places.get(place, ())):
            other = kept[index]
            if other.round == window.round == 0 and _is_well_inside(window, other):
                low = [min(pair) for pair in zip(other.fill[:2], window.fill[:2], strict=True)]
                high = [max(pair) for pair in zip(other.fill[2:], window.fill[2:], strict=True)]
                kept[index] = dataclasses.replace(other, fill=(low[0], low[1], high[0], high[1]))
                break
        else:
            places.setdefault((length, row, column), []).append(len(kept))
            kept.append(window)
    return kept


def _is_well_inside(window: Window, other: Window) -> bool:
    """An eighth of the other's length away from its ends, and no larger."""
    rows, columns = (side // 8 for side in other.shape)
    top, left, bottom, right = window.fill
    return (
        max(window.shape) == max(other.shape)
        and top >= other.top + rows
        and left >= other.left + columns
        and bottom <= other.bottom - rows
        and right <= other.right - columns
    )
