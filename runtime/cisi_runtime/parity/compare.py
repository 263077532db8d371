"""Is it still the same network? Results compared with the reference of a golden file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.codec import decode_pixels, encode_pixels, levels
from cisi_runtime.contract import Contract
from cisi_runtime.errors import ParityError
from cisi_runtime.metrics import psnr_db, ssim_map
from cisi_runtime.parity.golden import Golden, GoldenCase
from cisi_runtime.progress_on_stderr import ShowProgress, show_nothing

# Images uint8 `[N, H, W, 3]` and hole masks bool `[N, H, W]` to what a graph of either face gives.
Run = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.bool_]], npt.NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What a precision must keep. Known pixels must be exact, and everything finite, at every precision.

    max_abs: largest difference on [-1, 1]; for pixel results, beyond what rounding explains.
    hole_psnr_db: smallest PSNR over the hole.
    """

    max_abs: float | None = None
    hole_psnr_db: float | None = None

    def __str__(self) -> str:
        return f"max {self.max_abs:.0e}" if self.max_abs is not None else f"hole {self.hole_psnr_db:.0f} dB"


TOLERANCES = {
    # The largest that `_FLOAT32_FACTORS` may allow. Measured beyond rounding on random weights: 6e-5 in ONNX Runtime,
    # 2.3e-4 in OpenVINO. Margins 5 and 2.6.
    "float32": Tolerance(max_abs=3e-4),
    # Emulated. Measured: 70 dB on the shipped weights, 56 dB on random ones of preset paper. Margin 6 dB.
    "float16": Tolerance(hole_psnr_db=50.0),
    # Measured in OpenVINO and PyTorch: 54 dB on the shipped weights, 42.8 on random ones of preset paper. Margin 5 dB.
    "bf16": Tolerance(hole_psnr_db=38.0),
    # The budget that calibration keeps by default. Measured on trained weights and natural cases: 40 dB.
    "int8": Tolerance(hole_psnr_db=35.0),
}
# Other tolerances for some kinds of cases, by precision and kind.
_TOLERANCES_BY_KIND = {
    # ONNX Runtime sums the statistics of the first norm one by one in float32, and a flat picture leaves little but
    # that error to normalise. Measured with random weights: 7e-4, less than a tenth of a grey level; 2.2e-3 in
    # OpenVINO. Margins 4 and 2.7.
    ("float32", "flat"): Tolerance(max_abs=3e-3),
    # The PSNR of a hole of one pixel is that of three values. Measured: 52.9 dB where large holes have 56 to 59.
    # Margin 8 dB.
    ("float16", "noise"): Tolerance(hole_psnr_db=45.0),
    # Flat pictures leave little but rounding to normalise. Measured: 45 dB on the shipped weights, 38.5 on random ones.
    # Margin 4.5 dB.
    ("bf16", "flat"): Tolerance(hole_psnr_db=34.0),
    # The ranges come from photographs; what lies beyond them is clipped. Measured with ranges of 500 photographs:
    # 51.9 dB for flat pictures, 22.6 for one that is all hole (19.7 with ranges of six), 34.2 for noise. Margins 4 and
    # 9 dB.
    ("int8", "flat"): Tolerance(hole_psnr_db=15.5),
    ("int8", "noise"): Tolerance(hole_psnr_db=25.0),
}


# Float32 results may be this many times as far from the reference as PyTorch's own float32 is (`float32_error`), by
# backend and kind of case. Where a picture is even, a norm's sum of many nearly equal numbers is all that counts, and
# backends sum in different orders. Measured on shipped and random weights, on AVX-512: ONNX Runtime and PyTorch 14
# times where much of the picture is even, 170 where all of it is, 3 elsewhere; OpenVINO 69, 660 and 6. Margins about 4.
# With AVX2 alone sound graphs of 30 random checkpoints in ONNX Runtime kept a margin of 2.7 or more.
_FLOAT32_FACTORS = {"natural": 60.0, "flat": 800.0, "noise": 15.0}
_FLOAT32_FACTORS_ELSEWHERE = {"natural": 250.0, "flat": 2500.0, "noise": 25.0}
# Of the limits in `TOLERANCES`, in other backends.
_LIMIT_ELSEWHERE = 2.0
_FACTORS_APPLY_TO = ("onnxruntime", "torch")
# Some units in the last place of 1, for cases whose error is 0 by chance. Half of it is PyTorch's smallest on large
# holes.
_FLOAT32_FLOOR = 2e-6


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One variant of the network on one golden case.

    variant: what was run, for instance "ONNX float16 emulated, optimised".
    case: name of the golden case.
    finite: no NaN and no infinity.
    known_identical: every known pixel is as it was.
    max_abs, p99_abs, mean_abs: differences on [-1, 1] over all pixels; of pixel results the part that rounding does not
        explain.
    hole_psnr_db, image_psnr_db: peak 2, inf when equal; of pixel results against the reference's pixels.
    hole_ssim, image_ssim: of the pixels, 7x7 windows; over those centred in the hole (NaN if none is), over all.
    levels_changed: fraction of hole values that the codec makes another grey level.
    tolerance: what is required.
    """

    variant: str
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
        return self.finite and self.known_identical and self.margin_db >= 0.0

    @property
    def margin_db(self) -> float:
        """How far the result is from failing its tolerance, in dB; negative when it fails."""
        if not self.finite:
            return float("-inf")
        if self.tolerance.max_abs is None:
            assert self.tolerance.hole_psnr_db is not None
            return self.hole_psnr_db - self.tolerance.hole_psnr_db
        if self.max_abs == 0.0:
            return float("inf")
        # Exactly 0 at the tolerance itself.
        return 20.0 * float(np.log10(self.tolerance.max_abs / self.max_abs))

    @property
    def would_pass(self) -> str:
        """The tightest tolerance of the required kind, in round figures, that this result meets."""
        if not (self.finite and self.known_identical):
            return "none"
        if self.tolerance.max_abs is None:
            return "any" if np.isinf(self.hole_psnr_db) else f"hole {np.floor(self.hole_psnr_db):.0f} dB"
        if self.max_abs == 0.0:
            return "any"
        digit = 10.0 ** np.floor(np.log10(self.max_abs))
        return f"max {np.ceil(self.max_abs / digit) * digit:.0e}"

    @property
    def faults(self) -> str:
        """Why it failed, in words; empty when it passed."""
        reasons = []
        if not self.finite:
            reasons.append("not finite")
        if not self.known_identical:
            reasons.append("known pixels changed")
        if self.finite and not self.margin_db >= 0.0:
            reasons.append(f"would pass at {self.would_pass}")
        return ", ".join(reasons)

    def as_json(self) -> dict[str, Any]:
        """All figures by name, with the verdict. What JSON cannot hold (inf of equal pictures, NaN) is None."""
        values = dataclasses.asdict(self) | {"passed": self.passed, "would_pass": self.would_pass}
        return {name: None if isinstance(v, float) and not np.isfinite(v) else v for name, v in values.items()}


def compare(variant: str, case: GoldenCase, result: npt.NDArray[Any], required: Tolerance) -> Comparison:
    """Compare a result with the reference of its case. result: uint8 `[N, H, W, 3]`, or float `[N, 3, H, W]` in
    [-1, 1]. Raises ParityError for another shape."""
    hole = np.broadcast_to(case.hole_mask[:, None], case.completed.shape)
    reference_pixels = encode_pixels(case.completed)
    is_pixels = result.dtype == np.uint8
    expected_shape = reference_pixels.shape if is_pixels else case.completed.shape
    if result.shape != expected_shape:
        raise ParityError(f"{variant}, {case.name}: the result has shape {result.shape}, expected {expected_shape}")
    pixels = result if is_pixels else encode_pixels(np.nan_to_num(result))
    if is_pixels:
        exact = np.moveaxis(levels(case.completed.astype(np.float64)), 1, 3)
        # Rounding explains half a level. What is beyond is the computation's.
        difference = np.moveaxis(np.maximum(np.abs(pixels - exact) - 0.5, 0.0), 3, 1) / 127.5
        deviation = np.moveaxis(pixels.astype(np.float64) - reference_pixels, 3, 1) / 127.5
        known_identical = np.array_equal(pixels[~case.hole_mask], case.image[~case.hole_mask])
    else:
        difference = deviation = np.abs(result.astype(np.float64) - case.completed)
        known_identical = np.array_equal(result[~hole], decode_pixels(case.image)[~hole])
    hole_ssim, image_ssim = _similarity(pixels, reference_pixels, case.hole_mask)
    changed = (pixels != reference_pixels)[case.hole_mask]
    return Comparison(
        variant=variant,
        case=case.name,
        finite=bool(np.isfinite(result).all()),
        known_identical=known_identical,
        max_abs=float(difference.max()),
        p99_abs=float(np.percentile(difference, 99)),
        mean_abs=float(difference.mean()),
        hole_psnr_db=psnr_db(deviation[hole], 2.0),
        image_psnr_db=psnr_db(deviation, 2.0),
        hole_ssim=hole_ssim,
        image_ssim=image_ssim,
        levels_changed=float(changed.mean()) if changed.size else 0.0,
        tolerance=required,
    )


def _similarity(
    pixels: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]
) -> tuple[float, float]:
    maps = np.stack([ssim_map(a, b) for a, b in zip(pixels, reference, strict=True)])
    margin = (hole_mask.shape[1] - maps.shape[1]) // 2
    centres = hole_mask[:, margin:-margin, margin:-margin]
    return float(maps[centres].mean()) if centres.any() else float("nan"), float(maps.mean())


def tolerance(precision: str, case: GoldenCase, backend: str = "onnxruntime") -> Tolerance:
    """What a case must keep at a precision in a backend, by its name."""
    largest = _TOLERANCES_BY_KIND.get((precision, case.kind), TOLERANCES[precision])
    if precision != "float32":
        return largest
    assert largest.max_abs is not None
    factors, limit = _FLOAT32_FACTORS, largest.max_abs
    if backend not in _FACTORS_APPLY_TO:
        factors, limit = _FLOAT32_FACTORS_ELSEWHERE, _LIMIT_ELSEWHERE * limit
    return Tolerance(max_abs=min(limit, max(_FLOAT32_FLOOR, factors[case.kind] * case.float32_error)))


def compare_all(
    variant: str,
    run: Run,
    golden: Golden,
    precision: str,
    progress: ShowProgress = show_nothing,
    backend: str = "onnxruntime",
) -> list[Comparison]:
    """Run every case of a golden file and compare the results. backend: the name of what runs them."""
    comparisons = []
    for number, case in enumerate(golden.cases):
        progress(f"comparing: {variant}", number, len(golden.cases))
        comparisons.append(compare(variant, case, run(case.image, case.hole_mask), tolerance(precision, case, backend)))
    progress(f"comparing: {variant}", len(golden.cases), len(golden.cases))
    return comparisons


def compare_backend(
    variant: str, backend: Backend, golden: Golden, precision: str, progress: ShowProgress = show_nothing
) -> list[Comparison]:
    """Every case through a backend. Raises ParityError for a golden file of other weights or other sizes."""
    if golden.weights_sha256 != backend.contract.weights_sha256:
        raise ParityError(f"{variant}: graph and golden file come from different weights")
    for case in golden.cases:
        if not backend.fixed.accepts(case.image.shape):
            batch, height, width = case.image.shape[:3]
            raise ParityError(
                f"{variant}: the graph takes {backend.fixed}, but the golden case {case.name!r} has batch {batch}, "
                f"width {width}, height {height}; expected the golden file of this very export"
            )
    return compare_all(
        variant, lambda image, hole_mask: run_case(backend, image, hole_mask), golden, precision, progress, backend.name
    )


def run_case(backend: Backend, image: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """A golden case through a backend. The result is in the layout of the backend's face."""
    return backend.run(*case_inputs(backend.contract, image, hole_mask).values())


def case_inputs(
    contract: Contract, image: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[Any]]:
    """A golden case as a graph's inputs, by name.

    A uint8 mask gets all grey levels on both sides of the threshold: black and white alone would not show where the
    threshold lies. One without a hole is black: that is how people say that there is none.
    """
    inputs = contract.io.inputs(image, hole_mask)
    if contract.io.takes_pixels and hole_mask.any():
        spread, threshold = np.arange(hole_mask.size).reshape(hole_mask.shape), contract.mask_threshold
        grey = np.where(hole_mask, threshold + spread % (256 - threshold), spread % threshold)
        inputs[contract.inputs[1]] = grey.astype(np.uint8)
    return inputs
