from pathlib import Path

import numpy as np
import pytest

from cisi_runtime.errors import WeightsError
from cisi_runtime.pictures.resizing import read_square
from cisi_train.lpips import Lpips, load_lpips
from tests.support.networks import PHOTOS, SHARED_DATA

WEIGHTS = SHARED_DATA / "weights" / "alexnet_features_and_lpips_lin.npz"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs the LPIPS weights in ../shared/data")


@needs_weights
def test_distances_are_those_of_the_authors_package() -> None:
    metric = load_lpips(WEIGHTS)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (128, 96, 3), dtype=np.uint8)
    noisier = np.clip(noise.astype(int) + rng.integers(-60, 61, noise.shape), 0, 255).astype(np.uint8)
    photo = read_square(PHOTOS / "coast.jpg", 256)
    filled = photo.copy()
    above_and_below = photo[np.r_[0:64, 192:256]]
    filled[64:192, 64:192] = above_and_below.mean((0, 1)).astype(np.uint8)
    # From the package lpips 0.1.4 (net "alex", version 0.1) with these weights, on the same pixels.
    assert metric.of_pixels(noise, noisier) == pytest.approx(0.0494072, abs=1e-5)
    assert metric.of_pixels(photo, filled) == pytest.approx(0.3194812, abs=1e-5)
    assert metric.of_pixels(photo, photo) == 0.0


def test_a_head_weighs_its_layer() -> None:
    metric = Lpips()
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    assert metric.of_pixels(a, b) == 0.0  # heads of zeros
    metric.heads[2].fill_(0.5)
    distance = metric.of_pixels(a, b)
    metric.heads[2].fill_(1.0)
    assert metric.of_pixels(a, b) == pytest.approx(2 * distance, rel=1e-6)
    assert distance > 0


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        load_lpips(tmp_path / "missing.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(2))
    with pytest.raises(WeightsError, match="features.0.weight is missing"):
        load_lpips(tmp_path / "other.npz")
