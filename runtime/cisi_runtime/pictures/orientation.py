"""In which orientation a file is to be shown, by its EXIF and XMP."""

from __future__ import annotations

import io

from PIL import Image

from cisi_runtime.pictures.metadata import ORIENTATION, png_without_pixels
from cisi_runtime.pictures.picture import FORMATS, PILLOW_ERRORS, UPRIGHT


def orientation_of(image: Image.Image) -> int:
    """What the file tells by EXIF, or where that is silent by XMP; 1 when neither holds a valid one."""
    try:
        # That of PNG files would decode the pixels first, to see what follows them.
        orientation = Image.Image.getexif(image).get(ORIENTATION, 1)
    except PILLOW_ERRORS:
        return 1
    return orientation if orientation in UPRIGHT else 1


def orientation_of_head(image: Image.Image, data: bytes) -> int:
    """As `orientation_of`, for a file whose pixels have not been read."""
    if image.format != "PNG" or "exif" in image.info:
        return orientation_of(image)
    with Image.open(io.BytesIO(png_without_pixels(data)), formats=("PNG",)) as head:
        return orientation_of(head)


def told_orientation(data: bytes) -> int:
    """The orientation in which whoever reads this file will show it, 1 to 8. `data` has been written by Pillow."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.format == "PNG" and not {"exif", "XML:com.adobe.xmp", "Raw profile type exif"} & set(image.info):
            return 1  # without looking behind the pixels, where Pillow writes nothing
        if image.format != "TIFF":
            return orientation_of(image)
        orientation = getattr(image, "tag_v2", {}).get(ORIENTATION, 1)
        return orientation if orientation in UPRIGHT else 1
