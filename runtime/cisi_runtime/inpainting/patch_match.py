"""For each cell of a hole the patch of the known region that suits it: the nearest by its features, and coherent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cisi_runtime.inpainting.patch_level import (
    CELL,
    FEATURES,
    GUIDE,
    PAD,
    BoolArray,
    PatchLevel,
    UInt8Array,
    look_of,
    shifted,
    texture_features,
)

FloatArray = npt.NDArray[np.float32]
IndexArray = npt.NDArray[np.intp]

# Source patches that the exhaustive search of a level looks at. More were not better: 4,000 at the finer level lowered
# LPIPS less than 1,000 did, because neighbouring cells find the same source less often.
_MAX_SOURCES = 1024
# Patches compared at a time. Small enough for the processor's cache, and for OpenBLAS to stay in this thread.
_CHUNK = 12
# A cell's cost falls by this fraction when all eight neighbours share its offset.
_COHERENCE = 0.95
# Times that offsets spread to neighbours after each search.
_SWEEPS = 4
_DISCOUNTS = (1.0 - _COHERENCE / 8 * np.arange(9)).astype(np.float32)
# An offset that leads out of every picture.
_NOWHERE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Offsets:
    """Where each cell takes its pixels from.

    down, right: `[h, w]`, from the centre of a cell to that of its source patch, in pixels of the level.
    weight: `[h, w]` in [0, 1], how well the source suits; 0 for cells that have none.
    """

    down: IndexArray
    right: IndexArray
    weight: FloatArray

    @classmethod
    def none(cls, cells: tuple[int, ...]) -> Offsets:
        """For `[h, w]` cells without a source."""
        nowhere = np.full(cells, _NOWHERE, np.intp)
        return cls(nowhere, nowhere, np.zeros(cells, np.float32))


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What some cells look for.

    cells: their rows and columns. features: `[N, FEATURES]`. mask: which of them count, 0 or 1, `[N, FEATURES]`; None:
    all.
    """

    cells: tuple[IndexArray, ...]
    features: FloatArray
    mask: FloatArray | None = None

    def distance(self, features: FloatArray, places: IndexArray) -> FloatArray:
        """Squared distances to the features at these places; infinite where a place is -1. Sums of whole numbers below
        2**24, so exact."""
        difference = features[places] - self.features
        if self.mask is not None:
            difference *= self.mask
        return np.where(places >= 0, np.einsum("nf,nf->n", difference, difference), np.float32(np.inf))


class Matcher:
    """Finds sources for the active cells of a level.

    guide_weight: see `PatchLevel.source_features`.
    tolerance: added to every squared distance (100,000 is 40 grey levels in each pixel), so that an offset that
    neighbours share also wins against a perfect match. Without it cells agree on one small source that matches its own
    copies, and tile the hole with it.
    """

    def __init__(self, level: PatchLevel, guide_weight: float, tolerance: float) -> None:
        self._tolerance = np.float32(tolerance)
        self._level = level
        self._width = level.target.shape[1]
        self._features = level.source_features(guide_weight)
        self._is_source = level.is_source.ravel()
        self._sample = _spread(np.flatnonzero(self._is_source), _MAX_SOURCES)
        self._guide = level.guide_features(guide_weight)

    def extend(self, offsets: Offsets, ring: BoolArray, filled: BoolArray, estimate: UInt8Array) -> Offsets:
        """Sources for the cells of a ring `[h, w]` too, by the guide and by what is known or filled of their patches.

        filled: `[h, w]`, cells that are. estimate: uint8 `[H', W', 3]`.
        """
        cells: tuple[IndexArray, ...] = np.nonzero(ring)
        mask: FloatArray = np.zeros((len(cells[0]), FEATURES), np.float32)
        around = np.lib.stride_tricks.sliding_window_view(np.pad(filled, 1), (3, 3))
        mask[:, :9] = around[cells].reshape(-1, 9)
        mask[:, GUIDE] = 1.0
        texture: FloatArray = np.zeros((*ring.shape, 2), np.float32)
        wanted = dataclasses.replace(self._wanted(cells, estimate, texture), mask=mask)
        best = self._sample[_nearest(wanted.features, self._features[self._sample], mask)]
        for _ in range(_SWEEPS):
            best, _ = self._coherent(wanted, best, offsets)
        return self._with(offsets, cells, best, np.ones(len(best), np.float32))

    def best(self, estimate: UInt8Array, texture: FloatArray, candidates: Sequence[Offsets]) -> Offsets:
        """The nearest sources to the present estimate, for all active cells.

        estimate: uint8 `[H', W', 3]`. texture: `[h, w, 2]`, the gradients expected in each cell. candidates: offsets
        from elsewhere, tried beside the exhaustive search.
        """
        cells: tuple[IndexArray, ...] = np.nonzero(self._level.active)
        wanted = self._wanted(cells, estimate, texture)
        best = self._sample[_nearest(wanted.features, self._features[self._sample])]
        distance = wanted.distance(self._features, best)
        for offsets in candidates:
            found = self._source(wanted.cells, offsets.down[wanted.cells], offsets.right[wanted.cells])
            its_distance = wanted.distance(self._features, found)
            better = its_distance < distance
            best, distance = np.where(better, found, best), np.where(better, its_distance, distance)
        nothing = Offsets.none(texture.shape[:2])
        for _ in range(_SWEEPS):
            best, distance = self._coherent(wanted, best, nothing)
        return self._with(nothing, wanted.cells, best, _weight(distance))

    def _wanted(self, cells: tuple[IndexArray, ...], estimate: UInt8Array, texture: FloatArray) -> _Wanted:
        y, x = (CELL * numbers + CELL // 2 for numbers in cells)
        parts = look_of(estimate)[y, x], self._guide[y, x], texture_features(texture[cells])
        return _Wanted(cells, np.concatenate(parts, axis=1))

    def _coherent(self, wanted: _Wanted, best: IndexArray, others: Offsets) -> tuple[IndexArray, FloatArray]:
        """Each cell takes its own offset or that of a neighbour; one that several of them share may be worse.

        others: offsets of the other cells. Returns the sources and their squared distances.
        """
        offsets = self._with(others, wanted.cells, best, np.ones(len(best), np.float32))
        rows, columns = wanted.cells
        down = shifted(offsets.down, _NOWHERE)[:, rows, columns]
        right = shifted(offsets.right, _NOWHERE)[:, rows, columns]
        lowest = np.full(len(best), np.inf, np.float32)
        chosen, distance = best, lowest
        for number in range(len(down)):
            found = self._source(wanted.cells, down[number], right[number])
            its_distance = wanted.distance(self._features, found)
            agreeing = ((down[1:] == down[number]) & (right[1:] == right[number])).sum(axis=0)
            cost = (its_distance + self._tolerance) * _DISCOUNTS[agreeing]
            better = cost < lowest
            lowest = np.where(better, cost, lowest)
            chosen, distance = np.where(better, found, chosen), np.where(better, its_distance, distance)
        return chosen, distance

    def _source(self, cells: tuple[IndexArray, ...], down: IndexArray, right: IndexArray) -> IndexArray:
        """The centres of the patches that offsets lead to, as places in the raveled picture; -1 for none."""
        rows, columns = CELL * cells[0] + CELL // 2 + down, CELL * cells[1] + CELL // 2 + right
        height = len(self._is_source) // self._width
        is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < self._width)
        places = np.where(is_inside, rows * self._width + columns, 0)
        return np.where(is_inside & self._is_source[places], places, -1)

    def _with(self, others: Offsets, cells: tuple[IndexArray, ...], places: IndexArray, weights: FloatArray) -> Offsets:
        """The offsets of other cells, and those of these cells to the places of their sources."""
        down, right, weight = others.down.copy(), others.right.copy(), others.weight.copy()
        down[cells] = places // self._width - (CELL * cells[0] + CELL // 2)
        right[cells] = places % self._width - (CELL * cells[1] + CELL // 2)
        weight[cells] = weights
        return Offsets(down, right, weight)


def candidates_from_coarser(coarser: Offsets, cells: tuple[int, int]) -> list[Offsets]:
    """Offsets of a level of half the size, for this level's cells `[h, w]`: each cell's own with a shift of up to one
    pixel, and those of the eight cells around it."""
    rows, columns = (parents(count, limit) for count, limit in zip(cells, coarser.down.shape, strict=True))
    down = 2 * shifted(coarser.down, _NOWHERE)[:, rows[:, None], columns]
    right = 2 * shifted(coarser.right, _NOWHERE)[:, rows[:, None], columns]
    weight: FloatArray = np.zeros(cells, np.float32)
    own = [Offsets(down[0] + i, right[0] + j, weight) for i in (0, -1, 1) for j in (0, -1, 1)]
    return own + [Offsets(down[number], right[number], weight) for number in range(1, 9)]


def parents(cells: int, limit: int) -> IndexArray:
    """For each of a level's cells along an axis the cell of the next coarser level that it lies in."""
    padding = PAD // CELL
    return np.clip((np.arange(cells) - padding) // 2 + padding, 0, limit - 1)


def _nearest(wanted: FloatArray, features: FloatArray, mask: FloatArray | None = None) -> IndexArray:
    """For each of `[N, F]` the number of the nearest of `[M, F]`; the first of equals. mask: see `_Wanted`."""
    # |a - b|^2 / 2 without |a|^2 / 2, as one product.
    halves = features * features * np.float32(0.5)
    if mask is None:
        rows = np.concatenate([wanted, np.ones((len(wanted), 1), np.float32)], axis=1)
        columns = np.concatenate([-features, halves.sum(axis=1, keepdims=True)], axis=1)
    else:
        rows, columns = np.concatenate([wanted * mask, mask], axis=1), np.concatenate([-features, halves], axis=1)
    columns = columns.T.copy()
    result: IndexArray = np.empty(len(rows), np.intp)
    for start in range(0, len(rows), _CHUNK):
        result[start : start + _CHUNK] = (rows[start : start + _CHUNK] @ columns).argmin(axis=1)
    return result


def _spread(items: IndexArray, count: int) -> IndexArray:
    """At most `count` items, spread evenly but not in a rhythm (multiples of the golden section)."""
    if len(items) <= count:
        return items
    places = np.arange(count) * 0.6180339887498949 % 1.0 * len(items)
    return items[np.unique(places.astype(np.intp))]


def _weight(distance: FloatArray) -> FloatArray:
    """Of matches at these squared distances: about exp(-distance / 2s), s where three quarters are nearer. By
    multiplications, which every CPU rounds alike."""
    index = int(len(distance) * 0.75)
    scale = np.partition(distance, index)[index] + np.float32(1.0)
    root = np.float32(1.0) + distance / (np.float32(8.0) * scale)
    root *= root
    weight: FloatArray = np.float32(1.0) / (root * root)
    return weight
