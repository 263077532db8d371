"""Pillow images, and files by their path, as pictures and masks; the result as a Pillow image."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.errors import MaskError
from cisi_runtime.inpainting.input_types import Complete, ImageOrPath
from cisi_runtime.pictures.metadata import clean_exif
from cisi_runtime.pictures.picture import image_of
from cisi_runtime.pictures.reading import (
    MAX_PIXELS,
    MODES_8_BIT,
    check_mask_size,
    decode_mask_levels,
    mask_levels,
    picture_of,
    read_file,
    read_picture,
)

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


def completed_image(
    image: ImageOrPath, name: str, hole_of_size: Callable[[tuple[int, int]], BoolArray], complete: Complete
) -> Image.Image:
    """A picture completed. hole_of_size: its hole mask, from height and width. `name` is for messages.

    The mode stays, but 1 becomes L, and P, PA and transparency by colour become L, LA, RGB or RGBA: as `read_picture`
    has it. Colour profile, resolution and EXIF without its thumbnail are in `info`. What comes from a path is upright.

    Raises ValueError for another mode, PictureError for a file that cannot be read.
    """
    if isinstance(image, Image.Image):
        _check_mode(image, name)
        picture = picture_of(image)
        info = {"dpi": image.info.get("dpi"), "exif": clean_exif(image.info.get("exif", b""))}
    else:
        picture = read_picture(Path(image))
        assert picture.origin is not None  # it comes from a file
        info = {"dpi": picture.origin.dpi, "exif": picture.origin.upright_exif}
    rgb = complete(picture.rgb, hole_of_size(picture.size))
    result = image_of(dataclasses.replace(picture, rgb=rgb), grey=picture.grey)
    info["icc_profile"] = picture.icc_profile
    result.info.update({key: value for key, value in info.items() if value})
    return result


def levels_of(mask: ImageOrPath, size: tuple[int, int], name: str) -> UInt8Array:
    """The levels of a mask, uint8 `[H, W]`, for a picture of `size` (height, width). `name` is for messages.

    Raises ValueError for an image of another mode or with colours, PictureError for a file that cannot be read or has
    another size.
    """
    if isinstance(mask, Image.Image):
        _check_mode(mask, name)
        try:
            return mask_levels(mask, name)
        except MaskError as error:
            raise ValueError(str(error)) from error
    # The size must match in any case, so no other limit applies.
    levels = decode_mask_levels(read_file(Path(mask)), os.fspath(mask), max(MAX_PIXELS, size[0] * size[1]))
    check_mask_size(levels.shape, os.fspath(mask), size)
    return levels


def _check_mode(image: Image.Image, name: str) -> None:
    if image.mode not in MODES_8_BIT:
        modes = f"{', '.join(MODES_8_BIT[:-1])} or {MODES_8_BIT[-1]}"
        raise ValueError(f"{name}: expected a PIL image of mode {modes}, got {image.mode}")
    if 0 in image.size:
        raise ValueError(f"{name}: expected a PIL image with pixels, got {image.width}x{image.height}")
