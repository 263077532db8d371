"""The quadratic surface that most of the known pixels lie on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]

# Values that are fitted; of more, every n-th.
_MAX_VALUES = 1500
# Distances in grey levels beyond which a value counts for less than a quarter, one for each round of fitting.
_SCALES = (48.0, 24.0, 12.0)
# Prior for each of `1, x, y, x^2, xy, y^2`, in units of the weight of all values: a surface is flat where the known
# values do not say otherwise. A slope over the picture's half that is well supported loses less than a hundredth.
_RIDGE = (0.0, 1e-4, 1e-4, 1e-3, 1e-3, 1e-3)


def fitted_quadratic(values: FloatArray, weights: FloatArray) -> FloatArray:
    """A quadratic surface for each channel of `[H, W, C]`, everywhere.

    weights: `[H, W]`, 0 for what is unknown, which has no influence; at least one must be above 0.

    Iteratively reweighted least squares (Holland and Welsch, "Robust regression using iteratively reweighted
    least-squares", 1977), so that what lies far from the surface of most values does not bend it. All sums have one
    order, so every CPU gives the same.
    """
    basis, known = _basis(*weights.shape), weights > 0.0
    step = max(1, -(-int(known.sum()) // _MAX_VALUES))
    terms: Float64Array = basis[:, known][:, ::step]
    wanted = values[known][::step].T.astype(np.float64)
    prior = weights[known][::step].astype(np.float64)
    coefficients = _least_squares(terms, wanted, prior)
    for scale in _SCALES:
        distance = np.square(wanted - _combined(coefficients, terms)).mean(axis=0) / scale**2
        coefficients = _least_squares(terms, wanted, prior / np.square(1.0 + distance))
    return np.moveaxis(_combined(coefficients, basis), 0, 2).astype(np.float32)


def _basis(height: int, width: int) -> Float64Array:
    """`[6, H, W]`: 1, x, y, x^2, xy, y^2, of coordinates from the centre in halves of the longer side."""
    half = max(height, width) / 2
    y, x = ((np.arange(side) - (side - 1) / 2) / half for side in (height, width))
    y, x = np.broadcast_arrays(y[:, None], x[None, :])
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])


def _combined(coefficients: Float64Array, terms: Float64Array) -> Float64Array:
    """`[6, C]` and `[6, ...]` to `[C, ...]`. Not by a product of matrices, which CPUs sum in different orders."""
    return np.stack([sum((c * term for c, term in zip(band, terms, strict=True)), 0.0) for band in coefficients.T])


def _least_squares(terms: Float64Array, wanted: Float64Array, weight: Float64Array) -> Float64Array:
    """terms `[6, N]`, wanted `[C, N]`, weight `[N]` to coefficients `[6, C]`, by the normal equations."""
    columns = np.concatenate([terms, wanted])
    rows = [(columns * (term * weight)).sum(axis=1) for term in terms]
    total = float(weight.sum())
    for index, ridge in enumerate(_RIDGE):
        rows[index][index] += ridge * total
    # The matrix is positive definite: elimination needs no pivots.
    for index, pivot in enumerate(rows):
        pivot /= pivot[index]
        for other, row in enumerate(rows):
            if other != index:
                row -= row[index] * pivot
    return np.stack(rows)[:, len(terms) :]
