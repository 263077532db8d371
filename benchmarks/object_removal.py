"""`python -m benchmarks.object_removal`: the sheet of objects removed from the photographs in tests/photos.

Each row is one: original, hole, the network's own fill, and result.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime import Inpainter
from cisi_runtime.pictures.reading import read_mask, read_picture
from cisi_runtime.pictures.sheet import picture_sheet, show_hole

PHOTOS = Path(__file__).parent.parent / "tests" / "photos"
NAMES = ("balloon", "beetle", "harrier", "coast", "mountain", "yurt")
SHEET = PHOTOS.parent / "objects.jpg"


def rows(inpaint: Inpainter) -> list[list[npt.NDArray[np.uint8]]]:
    """Original, hole, network and result of each photograph."""
    network = Inpainter(inpaint.backend, detail=False)
    cells = []
    for name in NAMES:
        photo = read_picture(PHOTOS / f"{name}.jpg").rgb
        hole = read_mask(PHOTOS / f"{name}.mask.png", photo.shape[:2])
        cells.append([photo, show_hole(photo, hole), network(photo, hole), inpaint(photo, hole)])
    return cells


if __name__ == "__main__":
    Image.fromarray(picture_sheet(rows(Inpainter()))).save(SHEET, quality=85)
    print(f"{SHEET}: written")
