import numpy as np
import pytest

from cisi_calibration.defaults import METHODS
from cisi_calibration.histogram import Histogram, asymmetric_range, symmetric_range

RNG = np.random.default_rng(3)
# What activations look like: a bell with a few values far out, one of them one-sided as behind a ReLU.
SIGNED = np.concatenate([RNG.normal(0.3, 1.0, 50_000), [6.5, -8.0]]).astype(np.float32)
POSITIVE = np.maximum(SIGNED, 0.0)


def seen(*batches: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.update(batch.astype(np.float32))
    return histogram


def square_error(values: np.ndarray, lowest: float, highest: float, steps: int) -> float:
    """Of uniform quantisation with a level at zero, written down plainly."""
    scale = (highest - lowest) / steps
    zero_point = round(-lowest / scale)
    levels = np.clip(np.rint(values.astype(np.float64) / scale) + zero_point, 0, steps)
    return float(np.square((levels - zero_point) * scale - values).mean())


def test_counts_depend_neither_on_order_nor_on_batches() -> None:
    parts = [0.01 * SIGNED[:9000], 30 * SIGNED[9000:20_000], SIGNED[20_000:]]
    together, forward, backward = seen(np.concatenate(parts)), seen(*parts), seen(*parts[::-1])
    for other in (forward, backward):
        assert all(np.array_equal(a, b) for a, b in zip(together.bins(), other.bins(), strict=True))
        assert (other.lowest, other.highest) == (together.lowest, together.highest)


def test_counts_are_numpys() -> None:
    centres, counts = seen(SIGNED).bins()
    width = np.diff(centres).min()
    edges = np.append(centres - width / 2, centres[-1] + width / 2)
    expected = [np.count_nonzero((low <= SIGNED) & (low + width > SIGNED)) for low in edges[:-1]]
    assert counts.tolist() == expected
    assert counts.sum() == SIGNED.size
    # Several bins for each of the 256 levels of the whole range.
    assert width <= (SIGNED.max() - SIGNED.min()) / (256 * 3)


def test_zeros_stay_zeros_however_wide_the_bins_become() -> None:
    centres, counts = seen(np.zeros(7), np.array([1e-30]), np.array([1e6])).bins()
    assert counts.tolist() == [8, 1]
    assert 0 < centres[0] < 1e3


def test_memory_does_not_grow() -> None:
    histogram = Histogram()
    sizes = set()
    for _ in range(5):
        histogram.update(RNG.normal(0, 100, 20_000).astype(np.float32))
        sizes.add(sum(value.nbytes for value in vars(histogram).values() if isinstance(value, np.ndarray)))
    assert len(sizes) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        seen(np.array([1.0, value]))


@pytest.mark.parametrize("values", [SIGNED, POSITIVE], ids=["signed", "positive"])
def test_minmax_is_everything_and_zero(values: np.ndarray) -> None:
    assert asymmetric_range(seen(values), "minmax") == (values.min(), values.max())
    assert symmetric_range(seen(values), "minmax") == np.abs(values).max()
    assert asymmetric_range(seen(values + 100), "minmax")[0] == 0.0
    assert asymmetric_range(seen(values - 100), "minmax")[1] == 0.0


@pytest.mark.parametrize("values", [SIGNED, POSITIVE], ids=["signed", "positive"])
def test_percentile_leaves_one_in_ten_thousand_outside(values: np.ndarray) -> None:
    width = np.diff(seen(values).bins()[0]).min()

    def bracketed(excess: np.ndarray, part: float) -> bool:
        """Whether `part` of the values exceed an end, up to the width of a bin to either side of it."""
        return bool((excess > width).mean() <= part <= (excess > -width).mean())

    low, high = asymmetric_range(seen(values), "percentile")
    assert bracketed(values - high, 0.00005)
    assert bracketed(low - values, 0.00005) if values.min() < 0 else low == 0.0
    assert bracketed(np.abs(values) - symmetric_range(seen(values), "percentile"), 0.0001)


@pytest.mark.parametrize("values", [SIGNED, POSITIVE], ids=["signed", "positive"])
def test_mse_has_the_smallest_error(values: np.ndarray) -> None:
    low, high = asymmetric_range(seen(values), "mse")
    error = square_error(values, low, high, 255)
    assert error < 0.97 * square_error(values, min(values.min(), 0), values.max(), 255)
    # No other range of a coarse grid is better by more than the bins' width explains.
    grid = np.linspace(0.3, 1, 15)
    ends = [(a, b) for a in grid * min(values.min(), 0) for b in grid * values.max()]
    assert error <= 1.02 * min(square_error(values, a, b, 255) for a, b in ends)
    peak = symmetric_range(seen(values), "mse")
    best = min(square_error(values, -p, p, 254) for p in np.linspace(0.3, 1, 60) * np.abs(values).max())
    assert square_error(values, -peak, peak, 254) <= 1.02 * best


def test_entropy_stays_within_what_was_seen_and_cuts_it() -> None:
    low, high = asymmetric_range(seen(SIGNED), "entropy")
    assert SIGNED.min() <= low < 0 < high <= SIGNED.max()
    assert symmetric_range(seen(SIGNED), "entropy") < 0.9 * np.abs(SIGNED).max()
    assert asymmetric_range(seen(POSITIVE), "entropy")[0] == 0.0


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros(method: str) -> None:
    assert asymmetric_range(seen(np.zeros(5)), method) == (0.0, 0.0)
    assert symmetric_range(seen(np.zeros(5)), method) == 0.0
