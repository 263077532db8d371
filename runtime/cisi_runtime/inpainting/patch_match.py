"""For each cell of a hole the patch of the known region that suits it: the nearest by its features, and coherent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cisi_runtime.inpainting.patch_level import (
    CELL,
    PatchLevel,
    UInt8Array,
    guide_part,
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
# Added to every squared distance (one of 100,000 is 40 grey levels in each pixel), so that a shared offset also wins
# against a perfect match. Without it cells agree on one small source that matches its own copies, and tile the hole.
_TOLERANCE = 100_000.0
# Times that offsets spread to neighbours, after the first search and after each later one.
_FIRST_SWEEPS, _SWEEPS = 8, 4
_DISCOUNTS = (1.0 - _COHERENCE / 8 * np.arange(9)).astype(np.float32)
# An offset that leads out of every picture.
_NOWHERE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Offsets:
    """Where each cell takes its pixels from.

    down, right: `[h, w]`, from the centre of a cell to that of its source patch, in pixels of the level.
    weight: `[h, w]` in [0, 1], how well the source suits; 0 for cells that are not active.
    """

    down: IndexArray
    right: IndexArray
    weight: FloatArray


class Matcher:
    """Finds sources for the active cells of a level."""

    def __init__(self, level: PatchLevel) -> None:
        self._level = level
        self._width = level.target.shape[1]
        self._features = level.source_features()
        self._is_source = level.is_source.ravel()
        self._sample = _spread(np.flatnonzero(self._is_source), _MAX_SOURCES)
        self._cells = np.nonzero(level.active)
        self._rows, self._columns = (CELL * cells + CELL // 2 for cells in self._cells)
        self._guide = level.guide_features()[self._rows, self._columns]

    def by_guide(self) -> Offsets:
        """The sources whose colours are nearest to the guide's, whatever they look like."""
        features = guide_part(self._features)
        best = self._sample[_nearest(self._guide, features[self._sample])]
        for _ in range(_FIRST_SWEEPS):
            best, _ = self._coherent(self._guide, features, best)
        return self._offsets(best, np.ones(len(best), np.float32))

    def best(self, estimate: UInt8Array, texture: FloatArray, candidates: Sequence[Offsets]) -> Offsets:
        """The nearest sources to the present estimate.

        estimate: uint8 `[H', W', 3]`. texture: `[h, w, 2]`, the gradients expected in each cell. candidates: offsets
        from elsewhere, tried beside the exhaustive search.
        """
        look = look_of(estimate)[self._rows, self._columns]
        wanted = np.concatenate([look, self._guide, texture_features(texture[self._cells])], axis=1)
        best = self._sample[_nearest(wanted, self._features[self._sample])]
        distance = _distance(wanted, self._features, best)
        for offsets in candidates:
            found = self._source(offsets.down[self._cells], offsets.right[self._cells])
            its_distance = _distance(wanted, self._features, found)
            better = its_distance < distance
            best, distance = np.where(better, found, best), np.where(better, its_distance, distance)
        for _ in range(_SWEEPS):
            best, distance = self._coherent(wanted, self._features, best)
        return self._offsets(best, _weight(distance))

    def _coherent(self, wanted: FloatArray, features: FloatArray, best: IndexArray) -> tuple[IndexArray, FloatArray]:
        """Each cell takes its own offset or that of a neighbour; one that several of them share may be worse.

        Returns the sources and their squared distances.
        """
        offsets = self._offsets(best, np.ones(len(best), np.float32))
        rows, columns = self._cells
        down = shifted(offsets.down, _NOWHERE)[:, rows, columns]
        right = shifted(offsets.right, _NOWHERE)[:, rows, columns]
        lowest = np.full(len(best), np.inf, np.float32)
        chosen, distance = best, lowest
        for number in range(len(down)):
            found = self._source(down[number], right[number])
            its_distance = _distance(wanted, features, found)
            agreeing = ((down[1:] == down[number]) & (right[1:] == right[number])).sum(axis=0)
            cost = (its_distance + np.float32(_TOLERANCE)) * _DISCOUNTS[agreeing]
            better = cost < lowest
            lowest = np.where(better, cost, lowest)
            chosen, distance = np.where(better, found, chosen), np.where(better, its_distance, distance)
        return chosen, distance

    def _source(self, down: IndexArray, right: IndexArray) -> IndexArray:
        """The centres of the patches that offsets lead to, as places in the raveled picture; -1 for none."""
        rows, columns = self._rows + down, self._columns + right
        height = len(self._is_source) // self._width
        is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < self._width)
        places = np.where(is_inside, rows * self._width + columns, 0)
        return np.where(is_inside & self._is_source[places], places, -1)

    def _offsets(self, places: IndexArray, weights: FloatArray) -> Offsets:
        down, right = (np.full(self._level.active.shape, _NOWHERE, np.intp) for _ in range(2))
        weight: FloatArray = np.zeros(self._level.active.shape, np.float32)
        down[self._cells] = places // self._width - self._rows
        right[self._cells] = places % self._width - self._columns
        weight[self._cells] = weights
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
    padding = 2  # cells of `PAD`
    return np.clip((np.arange(cells) - padding) // 2 + padding, 0, limit - 1)


def _distance(wanted: FloatArray, features: FloatArray, places: IndexArray) -> FloatArray:
    """Squared distances of `[N, F]` to the features `[M, F]` at these places; infinite where a place is -1. Sums of
    whole numbers below 2**24, so exact."""
    difference = features[places] - wanted
    return np.where(places >= 0, np.einsum("nf,nf->n", difference, difference), np.float32(np.inf))


def _nearest(wanted: FloatArray, features: FloatArray) -> IndexArray:
    """For each of `[N, F]` the number of the nearest of `[M, F]`; the first of equals."""
    # |a - b|^2 / 2 without |a|^2 / 2, as one product: [a, 1] . [-b, |b|^2 / 2].
    half_lengths = np.einsum("nf,nf->n", features, features) * np.float32(0.5)
    columns = np.concatenate([-features, half_lengths[:, None]], axis=1).T.copy()
    rows = np.concatenate([wanted, np.ones((len(wanted), 1), np.float32)], axis=1)
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
