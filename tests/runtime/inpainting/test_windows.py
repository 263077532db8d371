import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from cisi_runtime.inpainting.windows import plan_windows


def drawn(height: int, width: int, draw: str, *box: int) -> np.ndarray:
    image = Image.new("L", (width, height))
    getattr(ImageDraw.Draw(image), draw)(box, fill=255, **({"width": 8} if draw == "line" else {}))
    return np.asarray(image) > 0


def covered(shape: tuple[int, int], windows: list) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for window in windows:
        top, left, bottom, right = window.fill
        mask[top:bottom, left:right] = True
    return mask


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    holes=st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=6),
    side=st.sampled_from([64, 256]),
)
def test_every_hole_is_filled_within_a_window(
    height: int, width: int, holes: list[tuple[float, ...]], side: int
) -> None:
    mask = np.zeros((height, width), dtype=bool)
    for top, left, tall, wide in holes:
        row, column = int(top * (height - 1)), int(left * (width - 1))
        mask[row : row + 1 + int(tall * height / 2), column : column + 1 + int(wide * width / 2)] = True
    windows = plan_windows(mask, side)
    assert bool(windows) == mask.any()
    assert covered((height, width), windows)[mask].all()
    for window in windows:
        assert 0 <= window.top <= window.fill[0] < window.fill[2] <= window.bottom <= height
        assert 0 <= window.left <= window.fill[1] < window.fill[3] <= window.right <= width
        assert all(length >= min(side, whole) for length, whole in zip(window.shape, mask.shape, strict=True))
    assert [window.round for window in windows] == sorted(window.round for window in windows)


def test_small_picture_is_one_window() -> None:
    (window,) = plan_windows(drawn(200, 256, "rectangle", 10, 10, 30, 30), 256)
    assert (window.shape, window.fill) == ((200, 256), (0, 0, 200, 256))


def test_a_window_is_twice_the_hole_and_around_it() -> None:
    (window,) = plan_windows(drawn(3000, 4000, "rectangle", 1600, 1024, 1919, 1343), 256)
    assert window.shape == (640, 640)
    assert window.fill == (1024, 1600, 1344, 1920)
    assert (window.top, window.left) == (864, 1440)


def test_a_window_stays_in_the_picture() -> None:
    (window,) = plan_windows(drawn(1000, 1000, "rectangle", 0, 980, 19, 999), 256)
    assert (window.top, window.left, window.bottom, window.right) == (744, 0, 1000, 256)
    (window,) = plan_windows(drawn(100, 5000, "rectangle", 2400, 0, 2599, 99), 256)
    assert window.shape == (100, 416)


def test_near_holes_share_a_window_and_far_ones_do_not() -> None:
    near = drawn(1000, 1000, "rectangle", 480, 480, 500, 500) | drawn(1000, 1000, "rectangle", 540, 480, 550, 500)
    assert len(plan_windows(near, 256)) == 1
    far = drawn(1000, 1000, "rectangle", 100, 100, 120, 120) | drawn(1000, 1000, "rectangle", 800, 800, 820, 820)
    assert [window.round for window in plan_windows(far, 256)] == [0, 0]


@pytest.mark.parametrize("line", [(100, 900, 1500, 300), (50, 500, 1550, 500)])
def test_a_wire_is_filled_piece_by_piece_at_full_resolution(line: tuple[int, ...]) -> None:
    windows = plan_windows(drawn(1000, 1600, "line", *line), 256)
    assert {window.shape for window in windows} == {(256, 256)}
    assert [window.round for window in windows] == list(range(len(windows)))


def test_a_disc_is_filled_in_one_piece() -> None:
    assert len(plan_windows(drawn(2000, 2000, "ellipse", 500, 500, 1100, 1100), 256)) == 1


def test_a_short_wire_stays_in_one_piece() -> None:
    (window,) = plan_windows(drawn(1000, 1000, "line", 410, 505, 580, 505), 256)
    assert window.shape == (384, 384)


def test_a_tall_object_is_no_wire() -> None:
    """Two windows on a balloon in the corner of a sky left a line across it."""
    (window,) = plan_windows(drawn(600, 600, "ellipse", 486, -40, 600, 303), 256)
    assert window.shape == (600, 600)
