"""Hole masks: bool arrays `[H, W]`, True = hole. Training, calibration and evaluation share these."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

BoolArray = npt.NDArray[np.bool_]


def centre_hole(height: int, width: int) -> BoolArray:
    """The paper's central hole: half the height and half the width (128x128 of 256x256)."""
    hole = np.zeros((height, width), dtype=np.bool_)
    top, left = height // 4, width // 4
    hole[top : top + height // 2, left : left + width // 2] = True
    return hole


def hole_box(hole_mask: BoolArray, margin: int) -> tuple[slice, slice]:
    """Rows and columns that hold the hole of `[H, W]`, with `margin` more on each side. The hole must not be empty."""
    rows, columns = (np.flatnonzero(hole_mask.any(axis=axis)) for axis in (1, 0))
    top, bottom = max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin
    left, right = max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin
    return slice(top, bottom), slice(left, right)


def dilated(hole_mask: BoolArray, pixels: int) -> BoolArray:
    """The hole grown by `pixels` on all sides, corners included. For masks that leave a rim of the object."""
    if not hole_mask.any():
        return hole_mask
    box = hole_box(hole_mask, pixels)
    grown = hole_mask.copy()
    grown[box] = _dilated(hole_mask[box], pixels)
    return grown


def _dilated(hole_mask: BoolArray, pixels: int) -> BoolArray:
    for axis in (0, 1):
        edges = [(0, 0), (0, 0)]
        edges[axis] = (pixels + 1, pixels)
        sums = np.cumsum(np.pad(hole_mask, edges), axis=axis, dtype=np.int32)
        length = hole_mask.shape[axis]
        upper = np.take(sums, np.arange(2 * pixels + 1, 2 * pixels + 1 + length), axis=axis)
        hole_mask = upper > np.take(sums, np.arange(length), axis=axis)
    return hole_mask


def one_rectangle(height: int, width: int, rng: np.random.Generator) -> BoolArray:
    """One rectangle anywhere, each side 3/8 to 5/8 of the picture's."""
    hole = np.zeros((height, width), dtype=np.bool_)
    _cut_rectangle(hole, rng, 3 / 8, 5 / 8)
    return hole


def rectangles(height: int, width: int, rng: np.random.Generator) -> BoolArray:
    """The paper's second kind: two to five rectangles at random places, each side 1/8 to 3/8 of the picture's."""
    hole = np.zeros((height, width), dtype=np.bool_)
    for _ in range(rng.integers(2, 6)):
        _cut_rectangle(hole, rng, 1 / 8, 3 / 8)
    return hole


def strokes(height: int, width: int, rng: np.random.Generator) -> BoolArray:
    """One to four free-form brush strokes with round ends, 1/20 to 1/8 of the shorter side wide."""
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    short = min(height, width)
    for _ in range(rng.integers(1, 5)):
        brush = int(rng.integers(max(2, short // 20), max(3, short // 8) + 1))
        position = rng.uniform((0, 0), (width, height))
        heading = rng.uniform(0, 2 * np.pi)
        points = [position]
        for _ in range(rng.integers(3, 9)):
            heading += rng.normal(0, 0.8)
            position = position + rng.uniform(0.08, 0.25) * short * np.array([np.cos(heading), np.sin(heading)])
            points.append(position)
        draw.line([(float(x), float(y)) for x, y in points], fill=1, width=brush, joint="curve")
        for x, y in points:
            draw.circle((float(x), float(y)), brush / 2, fill=1)
    return np.array(canvas, dtype=np.bool_)


def strokes_of_area(height: int, width: int, rng: np.random.Generator, smallest: float, largest: float) -> BoolArray:
    """Strokes that cover more than `smallest` and at most `largest` of the picture's area (fractions, 0.05 or more
    apart). Stroke masks are laid over each other until there is enough, and begun again when there is too much."""
    hole = np.zeros((height, width), dtype=np.bool_)
    while not smallest < hole.mean() <= largest:
        if hole.mean() > largest:
            hole[:] = False
        hole |= strokes(height, width, rng)
    return hole


# Kinds of holes that can be asked for by name.
HOLES = ("mixed", "paper", "centre", "rectangles", "strokes")


def random_hole(height: int, width: int, rng: np.random.Generator, kind: str = "mixed") -> BoolArray:
    """A hole of a kind in `HOLES`, never empty.

    "mixed" is for training: two in five are one large rectangle (the centre hole's size, anywhere), two in five several
    rectangles, one in five strokes. "paper" is the centre hole, or several rectangles, by halves;
    of a pair at most one is the centre hole.
    """
    if kind == "centre" or (kind == "paper" and rng.random() < 0.5):
        return centre_hole(height, width)
    draw = {"paper": rectangles, "rectangles": rectangles, "strokes": strokes}.get(kind)
    if draw is None:
        draw = (one_rectangle, one_rectangle, rectangles, rectangles, strokes)[rng.integers(5)]
    hole = draw(height, width, rng)
    while not hole.any():
        hole = draw(height, width, rng)
    return hole


def hole_pair(size: int, rng: np.random.Generator, kind: str) -> BoolArray:
    """Two holes of a kind in `HOLES` that differ, `[2, size, size]`. Of "centre" the second is as large, anywhere."""
    first = random_hole(size, size, rng, kind)
    second = first
    while np.array_equal(first, second):
        second = _moved_centre_hole(size, rng) if kind == "centre" else random_hole(size, size, rng, kind)
    return np.stack([first, second])


def _moved_centre_hole(size: int, rng: np.random.Generator) -> BoolArray:
    hole = np.zeros((size, size), dtype=np.bool_)
    top, left = rng.integers(0, size - size // 2 + 1, 2)
    hole[top : top + size // 2, left : left + size // 2] = True
    return hole


def _cut_rectangle(hole: BoolArray, rng: np.random.Generator, smallest: float, largest: float) -> None:
    height, width = hole.shape
    cut_height = max(1, round(height * rng.uniform(smallest, largest)))
    cut_width = max(1, round(width * rng.uniform(smallest, largest)))
    top = rng.integers(0, height - cut_height + 1)
    left = rng.integers(0, width - cut_width + 1)
    hole[top : top + cut_height, left : left + cut_width] = True
