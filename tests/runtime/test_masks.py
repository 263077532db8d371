import numpy as np
import pytest

from cisi_runtime.masks import centre_hole, one_rectangle, random_hole, rectangles, strokes


def test_centre_hole_is_the_papers() -> None:
    hole = centre_hole(256, 256)
    assert hole[64:192, 64:192].all()
    assert hole.sum() == 128 * 128


@pytest.mark.parametrize("draw", [one_rectangle, rectangles, strokes, random_hole])
def test_drawn_holes(draw: object) -> None:
    areas = []
    for seed in range(200):
        hole = draw(96, 128, np.random.default_rng(seed))  # type: ignore[operator]
        assert hole.shape == (96, 128)
        assert hole.dtype == np.bool_
        assert np.array_equal(hole, draw(96, 128, np.random.default_rng(seed)))  # type: ignore[operator]
        areas.append(hole.mean())
    assert 0.05 < np.mean(areas) < 0.4
    assert np.std(areas) > 0.02
    assert max(areas) < 0.9


def test_a_random_hole_is_never_empty() -> None:
    assert all(random_hole(64, 64, np.random.default_rng(seed)).any() for seed in range(500))
