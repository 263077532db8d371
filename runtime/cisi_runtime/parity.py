"""Is it still the same network? Comparing results with the reference of a golden file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend, graph_inputs
from cisi_runtime.codec import decode_pixels, encode_pixels, levels
from cisi_runtime.contract import Contract
from cisi_runtime.errors import ParityError
from cisi_runtime.golden import Golden, GoldenCase
from cisi_runtime.metrics import psnr_db, ssim_map

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
    # Measured beyond rounding: 8e-7 on the shipped weights, 4e-5 on random ones of preset paper. Margin 2.5.
    "float32": Tolerance(max_abs=1e-4),
    # Emulated; measured 62 dB on the shipped weights, 56 dB on random ones of preset paper. Margin 6 dB.
    "float16": Tolerance(hole_psnr_db=50.0),
    # The budget that calibration keeps by default. Trained weights: measured 40 dB on natural cases.
    "int8": Tolerance(hole_psnr_db=35.0),
}
# Where a kind of case may lie further off, by precision and kind.
_LOOSER = {
    # ONNX Runtime adds up the statistics of the first norm one by one in float32, and a flat picture leaves little but
    # that error to normalise: measured 7e-4 with random weights, less than a tenth of a grey level. Margin 3.
    ("float32", "flat"): Tolerance(max_abs=2e-3),
    # The PSNR of a hole of one pixel is that of three values: measured 52.9 dB where large holes have 56 to 59. Margin
    # 8 dB.
    ("float16", "noise"): Tolerance(hole_psnr_db=45.0),
    # The ranges come from photographs; what lies beyond them is clipped: measured 51.9 dB for flat pictures with ranges
    # of 500 photographs and 22.6 for one that is all hole, 19.7 with those of six; 34.2 for noise. Margins 4
    # and 9 dB.
    ("int8", "flat"): Tolerance(hole_psnr_db=15.5),
    ("int8", "noise"): Tolerance(hole_psnr_db=25.0),
}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One rung on one case. Differences on [-1, 1] over all pixels; for pixel results only the part that rounding does
    not explain. PSNR: peak 2, inf when equal, for pixels against the reference's pixels. SSIM of the pixels, 7x7
    windows, over those centred in the hole (NaN: none) and over all. levels_changed: share of hole values that are
    another grey level after the codec."""

    rung: str
    case: str
    finite: bool
    known_identical: bool
    max_abs: float
    p99_abs: float
    mean_abs: float
    hole_psnr_db: float
    image_psnr_db: float
    hole_ssim: float
    image_ssim: float
    levels_changed: float
    tolerance: Tolerance

    @property
    def passed(self) -> bool:
        """The verdict."""
        close = (self.tolerance.max_abs is None or self.max_abs <= self.tolerance.max_abs) and (
            self.tolerance.hole_psnr_db is None or self.hole_psnr_db >= self.tolerance.hole_psnr_db
        )
        return self.finite and self.known_identical and close

    @property
    def would_pass(self) -> str:
        """The tightest tolerance of the required kind, in round figures, that this result would have met."""
        if not (self.finite and self.known_identical):
            return "none"
        if self.tolerance.max_abs is None:
            return "any" if np.isinf(self.hole_psnr_db) else f"hole {np.floor(self.hole_psnr_db):.0f} dB"
        if self.max_abs == 0.0:
            return "any"
        digit = 10.0 ** np.floor(np.log10(self.max_abs))
        return f"max {np.ceil(self.max_abs / digit) * digit:.0e}"

    def as_json(self) -> dict[str, Any]:
        """All figures by name, with verdict; what JSON cannot hold (inf of an equal picture, NaN) is None."""
        values = dataclasses.asdict(self) | {"passed": self.passed, "would_pass": self.would_pass}
        return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in values.items()}


@dataclasses.dataclass(frozen=True)
class WeightComparison:
    """One weight of the checkpoint in a graph. stored_as: float32, float16, int8, or "missing"; worst: its largest
    difference as a multiple of what rounding or quantising explains."""

    name: str
    stored_as: str
    worst: float

    @property
    def passed(self) -> bool:
        """Whether rounding explains all of it."""
        return self.worst <= 1.0

    def as_json(self) -> dict[str, Any]:
        """By name, with verdict; an infinite `worst` is None."""
        worst = self.worst if np.isfinite(self.worst) else None
        return {"name": self.name, "stored_as": self.stored_as, "worst": worst, "passed": self.passed}


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
        deviation = np.moveaxis(pixels.astype(np.float64) - reference_pixels, 3, 1) / 127.5
        known = np.array_equal(pixels[~case.hole_mask], case.image[~case.hole_mask])
    else:
        difference = deviation = np.abs(result.astype(np.float64) - case.completed)
        known = np.array_equal(result[~hole], decode_pixels(case.image)[~hole])
    hole_ssim, image_ssim = _similarity(pixels, reference_pixels, case.hole_mask)
    return Comparison(
        rung=rung,
        case=case.name,
        finite=bool(np.isfinite(result).all()),
        known_identical=known,
        max_abs=float(difference.max()),
        p99_abs=float(np.percentile(difference, 99)),
        mean_abs=float(difference.mean()),
        hole_psnr_db=psnr_db(deviation[hole], 2.0),
        image_psnr_db=psnr_db(deviation, 2.0),
        hole_ssim=hole_ssim,
        image_ssim=image_ssim,
        levels_changed=float((pixels != reference_pixels)[case.hole_mask].mean()),
        tolerance=required,
    )


def _similarity(
    pixels: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    maps = np.stack([ssim_map(a, b) for a, b in zip(pixels, reference, strict=True)])
    margin = (hole_mask.shape[1] - maps.shape[1]) // 2
    centres = hole_mask[:, margin:-margin, margin:-margin]
    return float(maps[centres].mean()) if centres.any() else float("nan"), float(maps.mean())


def tolerance(precision: str, case: GoldenCase) -> Tolerance:
    """What a case must keep at a precision."""
    return _LOOSER.get((precision, case.kind), TOLERANCES[precision])


def compare_all(rung: str, run: Run, golden: Golden, precision: str) -> list[Comparison]:
    """Every case of a golden file through `run`, which takes uint8 images and bool hole masks."""
    return [compare(rung, case, run(case.image, case.hole_mask), tolerance(precision, case)) for case in golden.cases]


def check_backend(rung: str, backend: Backend, golden: Golden, precision: str) -> list[Comparison]:
    """Every case through a backend. Raises ParityError for a golden file of other weights or other sizes."""
    if golden.weights_sha256 != backend.contract.weights_sha256:
        raise ParityError(f"{rung}: graph and golden file come from different weights")
    for case in golden.cases:
        if not backend.fixed.takes(case.image.shape):
            batch, height, width = case.image.shape[:3]
            raise ParityError(
                f"{rung}: the graph takes {backend.fixed}, but the golden case {case.name!r} has batch {batch}, "
                f"width {width}, height {height}; expected the golden file of this very export"
            )
    return compare_all(rung, lambda image, hole_mask: run_case(backend, image, hole_mask), golden, precision)


def run_case(backend: Backend, image: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """A golden case through a backend, as the graph gives it."""
    inputs = case_inputs(backend.contract, image, hole_mask)
    return backend.run(*(inputs[name] for name in backend.contract.inputs))


def case_inputs(
    contract: Contract, image: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[Any]]:
    """As `graph_inputs`, with a mask of all grey levels on both sides of the threshold where the face takes levels:
    black and white alone would not show where the threshold lies."""
    inputs = graph_inputs(contract, image, hole_mask)
    if contract.face == "uint8":
        spread, threshold = np.arange(hole_mask.size).reshape(hole_mask.shape), contract.mask_threshold
        grey = np.where(hole_mask, threshold + spread % (256 - threshold), spread % threshold)
        inputs[contract.inputs[1]] = grey.astype(np.uint8)
    return inputs


def parity_table(comparisons: Iterable[Comparison]) -> str:
    """A table for people, one line a rung and case. SSIM and PSNR: over the hole."""
    lines = [
        f"{'rung':<32} {'case':<24} {'max':>7} {'p99':>7} {'mean':>7} {'PSNR':>8} {'SSIM':>6} {'levels':>7}  "
        f"{'known':<7} {'required':<10} {'would pass':<10} verdict"
    ]
    for item in comparisons:
        known = "exact" if item.known_identical else "CHANGED"
        lines.append(
            f"{item.rung:<32} {item.case:<24} {item.max_abs:7.0e} {item.p99_abs:7.0e} {item.mean_abs:7.0e} "
            f"{item.hole_psnr_db:5.1f} dB {item.hole_ssim:6.4f} {item.levels_changed:7.2%}  {known:<7} "
            f"{item.tolerance!s:<10} {item.would_pass:<10} "
            f"{'pass' if item.passed else 'FAIL' if item.finite else 'FAIL (not finite)'}"
        )
    return "\n".join(lines)


def weights_line(weights: Sequence[WeightComparison]) -> str:
    """One line for people on all weights together, naming the first bad one."""
    bad = [weight for weight in weights if not weight.passed]
    if not bad:
        worst = max(weight.worst for weight in weights)
        return f"weights: {len(weights)} as in the checkpoint (largest deviation {worst:.2f} of the rounding)  pass"
    first = f"{bad[0].name}, stored as {bad[0].stored_as}, {bad[0].worst:.1f} times the rounding"
    return f"weights: {len(bad)} of {len(weights)} are not the checkpoint's, the first: {first}  FAIL"
