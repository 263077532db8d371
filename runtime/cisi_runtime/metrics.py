"""Quality of a completed picture over its hole, and parity figures: numpy only."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_SSIM_WINDOW = 7


@dataclasses.dataclass(frozen=True)
class Quality:
    """Quality over the hole. l1_percent: of 255. psnr_db: peak 255, inf when equal. ssim: see `hole_quality`."""

    l1_percent: float
    psnr_db: float
    ssim: float


def psnr_db(difference: npt.NDArray[np.floating], peak: float) -> float:
    """PSNR of differences against a fixed peak: 255 for grey levels, 2 for [-1, 1]. inf when all are 0, or there is
    none."""
    mean_square = float(np.mean(np.square(difference, dtype=np.float64))) if difference.size else 0.0
    return float("inf") if mean_square == 0.0 else float(10.0 * np.log10(peak**2 / mean_square))


def agreement_db(completed: UInt8Array, other: UInt8Array, hole_mask: BoolArray) -> float:
    """PSNR over the hole of two pictures `[H, W, 3]` against each other, peak 255. Equal pictures count as if one value
    differed by a level, so that the mean over pictures stays finite."""
    difference = completed[hole_mask].astype(np.float64) - other[hole_mask]
    return psnr_db(difference if difference.any() else np.eye(1, difference.size), 255.0)


def hole_quality(completed: UInt8Array, truth: UInt8Array, hole_mask: BoolArray) -> Quality:
    """Pictures uint8 `[H, W, 3]`, hole_mask bool `[H, W]` with at least one hole pixel.

    SSIM (Wang et al. 2004; uniform 7x7 window, sample covariance, as scikit-image's default) is computed on the hole's
    bounding box and averaged over the windows whose centre lies in the hole, for the centre hole all of them; NaN when
    the box is smaller than the window.
    """
    rows, columns = (np.nonzero(hole_mask.any(axis=axis))[0] for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    difference = completed[hole_mask].astype(np.float64) - truth[hole_mask]
    similarity = float("nan")
    if min(hole_mask[box].shape) >= _SSIM_WINDOW:
        margin = _SSIM_WINDOW // 2
        centres = hole_mask[box][margin:-margin, margin:-margin]
        if centres.any():
            similarity = float(ssim_map(completed[box], truth[box])[centres].mean())
    return Quality(float(np.abs(difference).mean() / 2.55), psnr_db(difference, 255.0), similarity)


def sharpness(completed: UInt8Array, hole_mask: BoolArray, around: BoolArray) -> float:
    """Mean gradient inside the hole over that of the known pixels around it: 1 where a fill is as sharp as its
    surroundings.

    completed: uint8 `[H, W, 3]`. hole_mask: bool `[H, W]`. around: bool `[H, W]`, known pixels to compare with.
    Gradients that cross the edge of either count for neither. NaN where one of them is empty, or `around` is flat.
    """
    grey = completed.mean(axis=2)
    gradient = np.hypot(np.diff(grey, axis=1)[:-1], np.diff(grey, axis=0)[:, :-1])
    within, outside = (mask[:-1, :-1] & mask[1:, :-1] & mask[:-1, 1:] for mask in (hole_mask, around))
    if not within.any() or not outside.any() or not gradient[outside].any():
        return float("nan")
    return float(gradient[within].mean() / gradient[outside].mean())


def ssim_map(a: UInt8Array, b: UInt8Array) -> npt.NDArray[np.float64]:
    """SSIM of every whole 7x7 window, `[H, W, 3]` to `[H-6, W-6, 3]`."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    count = _SSIM_WINDOW**2
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    unbiased = count / (count - 1)
    variance_x = unbiased * (_window_mean(x * x) - mean_x**2)
    variance_y = unbiased * (_window_mean(y * y) - mean_y**2)
    covariance = unbiased * (_window_mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return (
        (2 * mean_x * mean_y + c1)
        * (2 * covariance + c2)
        / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))
    )


def _window_mean(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Means of every whole 7x7 window of `[H, W, C]`: first over rows, then over columns."""
    height, width = x.shape[0] - _SSIM_WINDOW + 1, x.shape[1] - _SSIM_WINDOW + 1
    rows = sum((x[offset : offset + height] for offset in range(1, _SSIM_WINDOW)), start=x[:height])
    total = sum((rows[:, offset : offset + width] for offset in range(1, _SSIM_WINDOW)), start=rows[:, :width])
    mean: npt.NDArray[np.float64] = total / _SSIM_WINDOW**2
    return mean
