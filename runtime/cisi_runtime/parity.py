"""Is it still the same network? Comparing results with the reference of a golden file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.codec import decode_pixels, encode_pixels, levels
from cisi_runtime.errors import ParityError
from cisi_runtime.golden import Golden, GoldenCase
from cisi_runtime.metrics import psnr_db

Run = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.bool_]], npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What a precision must keep: a largest difference on [-1, 1] (beyond rounding, for pixels), or a PSNR over the
    hole. Known pixels must be exact and everything finite at every precision."""

    max_abs: float | None = None
    hole_psnr_db: float | None = None

    def __str__(self) -> str:
        return f"max {self.max_abs:.0e}" if self.max_abs is not None else f"hole {self.hole_psnr_db:.0f} dB"


TOLERANCES = {
    # Measured beyond rounding 4e-7 on the shipped weights and 1.3e-5 on random ones. Margin 7.
    "float32": Tolerance(max_abs=1e-4),
    # Emulated; measured 62 to 70 dB.
    "float16": Tolerance(hole_psnr_db=50.0),
    # Trained weights only; measured 39 dB on natural cases, and, at step 800 of the shipped weights' training, 36.8 dB
    # on the worst of 18 photographs. Margin under 2 dB.
    "int8": Tolerance(hole_psnr_db=35.0),
}
# Where a case that is not natural may lie further off.
_UNNATURAL = {
    # ONNX Runtime adds up the statistics of the first norm one by one in float32, and flat white with everything a hole
    # leaves little but that error to normalise: measured 1.6e-4. Margin 3.
    "float32": Tolerance(max_abs=5e-4),
    # The ranges come from photographs; saturated noise lies beyond them and is clipped: measured 31.9 dB.
    "int8": Tolerance(hole_psnr_db=25.0),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One rung on one case. Differences on [-1, 1] over all pixels; for pixel results only the part that rounding does
    not explain. hole_psnr_db: peak 2, for pixels against the reference's pixels. levels_changed: share of hole values
    that are another grey level after the codec."""

    rung: str
    case: str
    finite: bool
    known_identical: bool
    max_abs: float
    p99_abs: float
    mean_abs: float
    hole_psnr_db: float
    levels_changed: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """The verdict."""
        close = (self.tolerance.max_abs is None or self.max_abs <= self.tolerance.max_abs) and (
            self.tolerance.hole_psnr_db is None or self.hole_psnr_db >= self.tolerance.hole_psnr_db
        )
        return self.finite and self.known_identical and close


def compare(rung: str, case: GoldenCase, result: npt.NDArray[Any], required: Tolerance) -> Comparison:
    """Compare a result (uint8 `[N, H, W, 3]`, or float `[N, 3, H, W]` in [-1, 1]) with the reference of its case."""
    hole = np.broadcast_to(case.hole_mask[:, None], case.completed.shape)
    reference_pixels = encode_pixels(case.completed)
    is_pixels = result.dtype == np.uint8
    expected_shape = reference_pixels.shape if is_pixels else case.completed.shape
    if result.shape != expected_shape:
        raise ParityError(f"{rung}, {case.name}: the result has shape {result.shape}, expected {expected_shape}")
    pixels = result if is_pixels else encode_pixels(np.nan_to_num(result))
    if is_pixels:
        exact = np.moveaxis(levels(case.completed.astype(np.float64)), 1, 3)
        # Rounding explains half a level; what is beyond is the computation's.
        difference = np.moveaxis(np.maximum(np.abs(pixels - exact) - 0.5, 0.0), 3, 1) / 127.5
        hole_difference = (pixels.astype(np.float64) - reference_pixels)[case.hole_mask] / 127.5
        known = np.array_equal(pixels[~case.hole_mask], case.image[~case.hole_mask])
    else:
        difference = np.abs(result.astype(np.float64) - case.completed)
        hole_difference = difference[hole]
        known = np.array_equal(result[~hole], decode_pixels(case.image)[~hole])
    return Comparison(
        rung=rung,
        case=case.name,
        finite=bool(np.isfinite(result).all()),
        known_identical=known,
        max_abs=float(difference.max()),
        p99_abs=float(np.percentile(difference, 99)),
        mean_abs=float(difference.mean()),
        hole_psnr_db=psnr_db(hole_difference, 2.0),
        levels_changed=float((pixels != reference_pixels)[case.hole_mask].mean()),
        tolerance=required,
    )


def tolerance(precision: str, case: GoldenCase) -> Tolerance:
    """What a case must keep at a precision."""
    return TOLERANCES[precision] if case.is_natural else _UNNATURAL.get(precision, TOLERANCES[precision])


def compare_all(rung: str, run: Run, golden: Golden, precision: str) -> list[Comparison]:
    """Every case of a golden file through `run`, which takes uint8 images and bool hole masks."""
    return [compare(rung, case, run(case.image, case.hole_mask), tolerance(precision, case)) for case in golden.cases]


def check_backend(rung: str, backend: Backend, golden: Golden, precision: str) -> list[Comparison]:
    """Every case through a backend. Raises ParityError for a golden file of other weights."""
    if golden.weights_sha256 != backend.contract.weights_sha256:
        raise ParityError(f"{rung}: graph and golden file come from different weights")
    return compare_all(rung, backend.run_pixels, golden, precision)


def parity_table(comparisons: Iterable[Comparison]) -> str:
    """A table for people, one line a rung and case."""
    lines = [
        f"{'rung':<34} {'case':<18} {'max':>8} {'p99':>8} {'mean':>8} {'hole PSNR':>10} {'levels':>7}  "
        f"{'known':<7} {'required':<11} verdict"
    ]
    for item in comparisons:
        known = "exact" if item.known_identical else "CHANGED"
        lines.append(
            f"{item.rung:<34} {item.case:<18} {item.max_abs:8.1e} {item.p99_abs:8.1e} {item.mean_abs:8.1e} "
            f"{item.hole_psnr_db:7.1f} dB {item.levels_changed:7.2%}  {known:<7} "
            f"{item.tolerance!s:<11} {'pass' if item.passed else 'FAIL' if item.finite else 'FAIL (not finite)'}"
        )
    return "\n".join(lines)
