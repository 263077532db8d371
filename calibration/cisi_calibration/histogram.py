"""Histograms whose bins widen as needed, and four ways to read a quantisation range off them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from onnxruntime.quantization.calibrate import HistogramCollector

Array = npt.NDArray[np.float64]

# Bins on each side of zero. Their width is the smallest power of two with which the largest value seen fits: of 4,096
# bins at least a quarter lie between zero and that value, four or more for each of the 256 levels of a range.
_SIDE = 2048
# The width's exponent before a value other than 0 is seen; smaller than that of any float32 number.
_MIN_EXPONENT = -160
# Fraction of all values that "percentile" keeps inside the range.
_PERCENTILE = 0.9999
# "mse" searches range ends from the extreme value down to this fraction of it, in this many steps.
_MSE_MIN, _MSE_STEPS = 0.3, 71
# "entropy" works on fewer bins, because its search is quadratic in their number.
_ENTROPY_SIDE, _ENTROPY_LEVELS = 512, 128


class Histogram:
    """Counts of the values of one tensor over any number of pictures, in constant memory.

    Bins begin at multiples of their width, which is a power of two. When a larger value comes, pairs of bins are
    merged. So the counts depend neither on the order of the pictures nor on their batches.
    """

    def __init__(self) -> None:
        self.lowest, self.highest = math.inf, -math.inf
        self._exponent = _MIN_EXPONENT
        self._counts = np.zeros(2 * _SIDE, dtype=np.int64)

    def update(self, values: npt.NDArray[np.float32]) -> None:
        """Count the values of one more picture. Raises ValueError when one is not finite."""
        lowest, highest = float(values.min()), float(values.max())
        if not (math.isfinite(lowest) and math.isfinite(highest)):
            raise ValueError("a value is not finite")
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        peak = max(abs(lowest), abs(highest))
        if peak > 0.0:
            self._widen(math.frexp(peak)[1] - int(math.log2(_SIDE)))
        # Exact in float32: a multiplication by a power of two.
        index = np.floor(np.ldexp(values, -self._exponent)).astype(np.int32)
        self._counts += np.bincount(index.ravel() + _SIDE, minlength=2 * _SIDE)

    def _widen(self, exponent: int) -> None:
        steps = exponent - self._exponent
        if steps <= 0:
            return
        merged = np.arange(-_SIDE, _SIDE) >> min(steps, 62)
        self._counts = np.bincount(merged + _SIDE, weights=self._counts, minlength=2 * _SIDE).astype(np.int64)
        self._exponent = exponent

    def bins(self) -> tuple[Array, Array]:
        """Centres and counts of the bins that are not empty."""
        occupied = np.flatnonzero(self._counts)
        return np.ldexp(occupied - _SIDE + 0.5, self._exponent), self._counts[occupied].astype(np.float64)

    def halved(self, side: int) -> tuple[Array, Array]:
        """Counts and edges of `2 * side` wider bins over the same span."""
        counts = self._counts.reshape(2 * side, -1).sum(axis=1).astype(np.float64)
        return counts, np.ldexp(np.arange(-side, side + 1) * float(_SIDE // side), self._exponent)


def asymmetric_range(seen: Histogram, method: str) -> tuple[float, float]:
    """Lowest and highest value of 256 levels, zero among them, by a method in `METHODS`.

    "minmax": everything that was seen.
    "percentile": 99.99 % of it; half of the rest is cut off at each end.
    "mse": the least mean square error of rounding and clipping, over a grid of both ends.
    "entropy": the least Kullback-Leibler divergence, by ONNX Runtime's search (Migacz, GTC 2017), which moves both ends
        together.
    """
    lowest, highest = min(seen.lowest, 0.0), max(seen.highest, 0.0)
    if method == "minmax" or lowest == highest:
        return lowest, highest
    if method == "entropy":
        threshold = _entropy_threshold(seen)
        return max(lowest, -threshold), min(highest, threshold)
    centres, counts = seen.bins()
    if method == "percentile":
        below = np.cumsum(counts) / counts.sum()
        tail = (1.0 - _PERCENTILE) / 2.0
        low, high = (centres[np.searchsorted(below, part)] for part in (tail, 1.0 - tail))
        return max(lowest, min(float(low), 0.0)), min(highest, max(float(high), 0.0))
    factors = np.linspace(1.0, _MSE_MIN, _MSE_STEPS)
    # One end at a time, twice: the ends hardly depend on each other.
    for _ in range(2):
        if highest > 0.0:
            top = max(seen.highest, 0.0)
            highest = min((top * f for f in factors), key=lambda end: _square_error(centres, counts, lowest, end, 255))
        if lowest < 0.0:
            bottom = seen.lowest
            lowest = min((bottom * f for f in factors), key=lambda e: _square_error(centres, counts, e, highest, 255))
    return lowest, highest


def symmetric_range(seen: Histogram, method: str) -> float:
    """Largest absolute value of the 255 levels from -127 to 127, by a method as in `asymmetric_range`."""
    peak = max(abs(seen.lowest), abs(seen.highest))
    if method == "minmax" or peak == 0.0:
        return peak
    if method == "entropy":
        return min(peak, _entropy_threshold(seen))
    centres, counts = seen.bins()
    if method == "percentile":
        order = np.argsort(np.abs(centres), kind="stable")
        below = np.cumsum(counts[order]) / counts.sum()
        return min(peak, abs(float(centres[order][np.searchsorted(below, _PERCENTILE)])))
    factors = np.linspace(1.0, _MSE_MIN, _MSE_STEPS)
    best: float = min((peak * f for f in factors), key=lambda end: _square_error(centres, counts, -end, end, 254))
    return best


def _square_error(centres: Array, counts: Array, lowest: float, highest: float, steps: int) -> float:
    """Square error of values that are rounded to `steps` + 1 levels, one of them zero, and clipped; summed over the
    counts."""
    scale = (highest - lowest) / steps
    zero = np.rint(lowest / scale)
    rounded = np.clip(np.rint(centres / scale), zero, zero + steps) * scale
    return float(np.sum(np.square(rounded - centres) * counts))


def _entropy_threshold(seen: Histogram) -> float:
    counts, edges = seen.halved(_ENTROPY_SIDE)
    collector = HistogramCollector("entropy", True, 2 * _ENTROPY_SIDE, _ENTROPY_LEVELS, None, "same")
    low, high = collector.get_entropy_threshold((counts, edges, edges[0], edges[-1], edges[-1]), _ENTROPY_LEVELS)
    return float(max(abs(low), abs(high)))
