"""Any size to a size that the network takes, and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cisi_runtime.contract import Contract

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def padded_size(height: int, width: int, contract: Contract) -> tuple[int, int]:
    """The next size up that the graph takes: multiples of `size_multiple`, at least `min_size`."""
    multiple = contract.size_multiple
    padded = [max(contract.min_size, -(-side // multiple) * multiple) for side in (height, width)]
    return padded[0], padded[1]


def pad(
    rgb: UInt8Array, hole_mask: BoolArray, contract: Contract, to: tuple[int, int] | None = None
) -> tuple[UInt8Array, BoolArray]:
    """Pad picture `[H, W, 3]` and mask `[H, W]` together to the right and below by the contract's rule, to height and
    width `to`, or to the next that a graph for any size takes.

    Measured once on the shipped weights, 52 photographs cut from 256 to 250 pixels, PSNR over the hole: reflect
    15.38 dB, edge 15.37 dB, hole 15.23 dB, uncut 15.37 dB.

    "reflect": mirrored without repeating the edge, and the edge repeated where the picture is too short for that;
    "edge": the edge repeated; "hole": black, and marked as hole.
    """
    height, width = hole_mask.shape
    below, right = (
        after - before
        for after, before in zip(to or padded_size(height, width, contract), (height, width), strict=True)
    )
    if contract.padding == "hole":
        return (
            np.pad(rgb, ((0, below), (0, right), (0, 0))),
            np.pad(hole_mask, ((0, below), (0, right)), constant_values=True),
        )
    rows = _padded_indices(height, below, contract.padding)
    columns = _padded_indices(width, right, contract.padding)
    grid = np.ix_(rows, columns)
    return rgb[grid], hole_mask[grid]


def _padded_indices(length: int, extra: int, rule: str) -> npt.NDArray[np.intp]:
    mirrored = min(extra, length - 1) if rule == "reflect" else 0
    first = np.arange(length)
    mirror = length - 2 - np.arange(mirrored)
    last = mirror[-1] if mirrored else length - 1
    return np.concatenate([first, mirror, np.full(extra - mirrored, last)]).astype(np.intp)
