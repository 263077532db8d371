"""Sheets: every picture below its caption."""

import numpy as np

from cisi_runtime.pictures.sheet import picture_sheet


def plain(height: int, width: int, level: int) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def test_each_picture_lies_below_its_caption() -> None:
    rows = [[plain(30, 200, 10), plain(30, 200, 20)], [plain(50, 100, 30)]]
    sheet = picture_sheet(rows, [["input", "reference"], ["input"]])
    assert sheet.shape == (4 + (16 + 30) + 4 + (16 + 50) + 4, 4 + 200 + 4 + 200 + 4, 3)
    assert (sheet[20:50, 4:204] == 10).all()
    assert (sheet[20:50, 208:408] == 20).all()
    assert (sheet[70:120, 4:104] == 30).all()
    for caption in (sheet[4:20, 4:204], sheet[4:20, 208:408], sheet[54:70, 4:104]):
        assert caption.min() < 100  # letters
        assert (caption[0] == 255).all()
    assert (sheet[54:, 108:] == 255).all()


def test_a_caption_is_never_cut() -> None:
    narrow = picture_sheet([[plain(64, 64, 0), plain(64, 64, 0)]], [["saturated noise, strokes: input", "reference"]])
    wide = picture_sheet([[plain(64, 300, 0)]], [["saturated noise, strokes: input"]])
    first = narrow[4:20, 4 : narrow.shape[1] - 4 - 64 - 4]
    assert np.array_equal(first, wide[4:20, 4 : 4 + first.shape[1]])
    assert (wide[4:20, 4 + first.shape[1] :] == 255).all()
