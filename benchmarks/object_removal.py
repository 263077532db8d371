"""`python -m benchmarks.object_removal`: two sheets of the photographs in tests/photos.

tests/objects.jpg: objects removed. docs/images/detail_failures.jpg: centre holes that go wrong. Each row shows
original, hole, the network's own fill, and result.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime import Inpainter
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.reading import read_mask, read_picture
from cisi_runtime.pictures.resizing import read_square
from cisi_runtime.pictures.sheet import picture_sheet, show_hole

UInt8Array = npt.NDArray[np.uint8]

ROOT = Path(__file__).parent.parent
PHOTOS = ROOT / "tests" / "photos"
OBJECTS = ("balloon", "beetle", "harrier", "coast", "mountain", "yurt")
FAILURES = ("coast", "mountain", "yurt", "harrier")


def row(inpaint: Inpainter, photo: UInt8Array, hole: npt.NDArray[np.bool_]) -> list[UInt8Array]:
    """Original, hole, network and result."""
    network = Inpainter(inpaint.backend, detail=False)
    return [photo, show_hole(photo, hole), network(photo, hole), inpaint(photo, hole)]


def write_sheets() -> None:
    """Both sheets."""
    rows: dict[Path, list[list[UInt8Array]]] = {}
    with Inpainter() as inpaint:
        photos = {name: read_picture(PHOTOS / f"{name}.jpg").rgb for name in OBJECTS}
        rows[ROOT / "tests" / "objects.jpg"] = [
            row(inpaint, photo, read_mask(PHOTOS / f"{name}.mask.png", photo.shape[:2]))
            for name, photo in photos.items()
        ]
        rows[ROOT / "docs" / "images" / "detail_failures.jpg"] = [
            row(inpaint, read_square(PHOTOS / f"{name}.jpg", 256), centre_hole(256, 256)) for name in FAILURES
        ]
    for path, pictures in rows.items():
        sheet = picture_sheet(pictures, [["original", "hole", "without detail", "result"]] * len(pictures))
        Image.fromarray(sheet).save(path, quality=85)
        print(f"{path.relative_to(ROOT)}: written")


if __name__ == "__main__":
    write_sheets()
