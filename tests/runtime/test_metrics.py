import numpy as np
import pytest
from skimage.metrics import structural_similarity

from cisi_runtime.metrics import hole_quality, psnr_db, sharpness
from cisi_runtime.pictures.masks import centre_hole

RNG = np.random.default_rng(3)
TRUTH = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
HOLE = centre_hole(64, 64)


def test_against_hand_computed_values() -> None:
    completed = TRUTH.copy()
    completed[HOLE] = np.where(TRUTH[HOLE] < 128, TRUTH[HOLE] + 51, TRUTH[HOLE] - 51)
    quality = hole_quality(completed, TRUTH, HOLE)
    assert quality.l1_percent == pytest.approx(20.0)
    assert quality.psnr_db == pytest.approx(20 * np.log10(255 / 51))


def test_equal_pictures() -> None:
    quality = hole_quality(TRUTH, TRUTH, HOLE)
    assert (quality.l1_percent, quality.psnr_db, quality.ssim) == (0.0, float("inf"), pytest.approx(1.0))


def test_only_the_hole_counts() -> None:
    completed = TRUTH.copy()
    completed[~HOLE] = 0
    assert hole_quality(completed, TRUTH, HOLE).psnr_db == float("inf")


def test_ssim_is_scikit_images_on_the_hole() -> None:
    completed = RNG.integers(0, 256, TRUTH.shape, dtype=np.uint8) // 4 + TRUTH // 2
    box = np.s_[16:48, 16:48]
    expected = structural_similarity(completed[box], TRUTH[box], win_size=7, channel_axis=2, data_range=255)
    assert hole_quality(completed, TRUTH, HOLE).ssim == pytest.approx(expected, abs=1e-12)


def test_ssim_needs_a_whole_window() -> None:
    small = np.zeros_like(HOLE)
    small[5:11, 5:30] = True
    assert np.isnan(hole_quality(TRUTH, TRUTH, small).ssim)


def test_psnr_of_a_constant_difference() -> None:
    assert psnr_db(np.full(9, 0.2), 2.0) == pytest.approx(20.0)


def test_sharpness_is_a_ratio_of_gradients() -> None:
    """A slope of 1 in the hole and of 4 around it; what crosses the hole's edge counts for neither."""
    picture = np.broadcast_to((np.arange(64, dtype=np.uint8) * 4)[:, None], (64, 64)).copy()
    picture[HOLE] = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None], (32, 32)).ravel()
    picture = np.dstack([picture] * 3)
    assert sharpness(picture, HOLE, ~HOLE) == pytest.approx(0.25)
    assert np.isnan(sharpness(np.zeros_like(picture), HOLE, ~HOLE))
    assert np.isnan(sharpness(picture, HOLE, np.zeros_like(HOLE)))
