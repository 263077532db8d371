"""A fill joined to the picture around its hole, without a seam."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from cisi_runtime.extrapolation import FloatArray, continued, surroundings

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def join(fill: UInt8Array, picture: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
    """The fill, moved so that it meets the picture at the edge of the hole. fill, picture: uint8 `[H, W, 3]`; hole_mask
    bool `[H, W]`, True = hole, where the picture has no influence; returns uint8 `[H, W, 3]`, outside the hole the fill
    as it is.

    Each of the hole's outermost pixels should be as its known neighbours are on average; the difference, continued into
    the hole, is added to the fill: a membrane, which is Poisson blending (Perez, Gangnet and Blake, "Poisson Image
    Editing", 2003, section 2). Measured on the shipped weights, 52 photographs, centre hole of 128 pixels: 15.38 dB
    without, 15.85 dB with it; averages over 5x5, 9x9 and 17x17 neighbours gave 15.82, 15.75 and 15.65 dB, and solving
    for the membrane exactly, instead of by pull and push, 15.87 dB.
    """
    if not hole_mask.any():
        return fill
    box = surroundings(hole_mask, 2)
    hole, inside = hole_mask[box], fill[box].astype(np.float32)
    expected, neighbours = _mean_of_known_neighbours(picture[box], ~hole)
    difference = continued(expected - inside, hole & (neighbours > 0), nothing=0.0)
    joined = np.rint(np.clip(inside + difference, 0.0, 255.0)).astype(np.uint8)
    result = fill.copy()
    result[box] = np.where(hole[..., None], joined, fill[box])
    return result


def _mean_of_known_neighbours(picture: UInt8Array, known: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Of each pixel the mean `[H, W, 3]` of those of its eight neighbours that are known, 0 where none is, and how many
    `[H, W]` that are."""
    height, width = known.shape
    values: FloatArray = np.pad(picture * known[..., None].astype(np.float32), ((1, 1), (1, 1), (0, 0)))
    weights: FloatArray = np.pad(known.astype(np.float32), 1)
    sums: FloatArray = np.zeros((height, width, 3), np.float32)
    counts: FloatArray = np.zeros((height, width), np.float32)
    for down, right in itertools.product(range(3), range(3)):
        sums += values[down : down + height, right : right + width]
        counts += weights[down : down + height, right : right + width]
    sums /= np.maximum(counts, 1.0)[..., None]
    return sums, counts
