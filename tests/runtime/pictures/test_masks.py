import numpy as np
import pytest

from cisi_runtime.pictures.masks import (
    HOLES,
    centre_hole,
    dilated,
    hole_pair,
    one_rectangle,
    random_hole,
    rectangles,
    strokes,
)


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


@pytest.mark.parametrize("pixels", [0, 1, 3, 40])
def test_a_hole_grows_to_all_sides(pixels: int) -> None:
    hole = np.zeros((20, 30), dtype=np.bool_)
    hole[8, 5] = hole[19, 29] = True
    grown = dilated(hole, pixels)
    rows, columns = np.mgrid[:20, :30]
    near = [np.maximum(abs(rows - row), abs(columns - column)) <= pixels for row, column in ((8, 5), (19, 29))]
    assert np.array_equal(grown, near[0] | near[1])


@pytest.mark.parametrize("kind", HOLES)
def test_the_two_holes_of_a_pair_differ(kind: str) -> None:
    pairs = [hole_pair(64, np.random.default_rng(seed), kind) for seed in range(200)]
    assert all(pair.shape == (2, 64, 64) and pair.any(axis=(1, 2)).all() for pair in pairs)
    assert not any(np.array_equal(*pair) for pair in pairs)
    if kind == "centre":
        assert all(np.array_equal(first, centre_hole(64, 64)) for first, _ in pairs)
        assert {int(second.sum()) for _, second in pairs} == {32 * 32}
        assert len({second.tobytes() for _, second in pairs}) > 150


def test_the_papers_holes_are_the_centre_or_several_rectangles() -> None:
    holes = [random_hole(64, 64, np.random.default_rng(seed), "paper") for seed in range(300)]
    centre = sum(np.array_equal(hole, centre_hole(64, 64)) for hole in holes)
    assert 110 < centre < 190  # 150 expected, nine standard deviations wide
    others = [random_hole(64, 64, np.random.default_rng(seed), "rectangles") for seed in range(300)]
    areas = sorted(hole.mean() for hole in holes if not np.array_equal(hole, centre_hole(64, 64)))
    assert np.median(areas) == pytest.approx(np.median([hole.mean() for hole in others]), rel=0.2)
