"""The one reader and writer of picture files."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from cisi_runtime.contract import MASK_THRESHOLD
from cisi_runtime.errors import DataError, OutputError, PictureError
from cisi_runtime.files import whole_file

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# Formats whose pixels Pillow gives back as they are, once 16-bit files are refused.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
_MODES_8_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".png": {"format": "PNG", "compress_level": 3},
    ".webp": {"format": "WEBP", "lossless": True, "exact": True},
    ".tif": {"format": "TIFF", "compression": "tiff_deflate"},
    ".tiff": {"format": "TIFF", "compression": "tiff_deflate"},
    ".bmp": {"format": "BMP"},
}
_NO_ALPHA = (".jpg", ".jpeg", ".bmp")
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded picture, upright (EXIF orientation applied).

    rgb: uint8 `[H, W, 3]`; alpha: uint8 `[H, W]` or None; icc_profile: the file's own, to be written back.
    """

    rgb: UInt8Array
    alpha: UInt8Array | None = None
    icc_profile: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def read_picture(path: Path) -> Picture:
    """Read a photograph: JPEG, PNG, WebP, TIFF or BMP with 8 bits a channel; grey and palette become RGB.

    Raises PictureError for a file that is missing, damaged, of another format, animated, CMYK, or deeper than 8 bits
    (Pillow would cut a 16-bit picture to 8 bits in silence).
    """
    with _opened(path) as image:
        icc_profile = image.info.get("icc_profile")
        upright = ImageOps.exif_transpose(image)
        if upright.has_transparency_data:
            rgba = np.asarray(upright.convert("RGBA"))
            return Picture(np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3]), icc_profile)
        return Picture(np.array(upright.convert("RGB")), None, icc_profile)


def find_pictures(folder: Path) -> list[Path]:
    """Files with a picture's suffix, in the folder and below, sorted. Raises DataError for no such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def check_picture(path: Path) -> None:
    """Raise what `read_picture` would raise, also for a truncated file; a JPEG is decoded at an eighth of its size."""
    with _opened(path) as image:
        image.draft("RGB", (1, 1))
        image.load()


def read_mask(path: Path, size: tuple[int, int]) -> BoolArray:
    """Read a hole mask for a picture of `size` (height, width): bool `[H, W]`, True = hole = 128 and above.

    1-bit, grey, palette and RGB(A) files are accepted; the colour channels must be equal and alpha is ignored.
    Raises PictureError also for channels that differ and for another size.
    """
    rgb = read_picture(path).rgb
    if not (np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2])):
        raise PictureError(f"{path}: the colour channels differ, expected a black and white mask (white = hole)")
    if rgb.shape[:2] != size:
        found, expected = f"{rgb.shape[1]}x{rgb.shape[0]}", f"{size[1]}x{size[0]}"
        raise PictureError(f"{path}: the mask is {found} pixels, expected {expected} as the picture")
    return rgb[..., 0] >= MASK_THRESHOLD


def check_output_format(path: Path, *, has_alpha: bool = False) -> None:
    """Raise OutputError when no picture, or none with alpha, can be written under this name."""
    suffix = path.suffix.lower()
    if suffix not in _SAVE_OPTIONS:
        raise OutputError(f"{path}: unknown picture format {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if has_alpha and suffix in _NO_ALPHA:
        raise OutputError(f"{path}: {suffix} cannot hold the picture's alpha channel, expected .png, .webp or .tif")


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture whole or not at all; the suffix names the format. PNG, WebP, TIFF and BMP are lossless,
    JPEG is written at quality 95 without chroma subsampling. Raises OutputError."""
    check_output_format(path, has_alpha=picture.alpha is not None)
    pixels = picture.rgb if picture.alpha is None else np.dstack([picture.rgb, picture.alpha])
    options = dict(_SAVE_OPTIONS[path.suffix.lower()])
    # Bytes 16 to 20 of a profile name its colour space: that of a picture that was grey does not fit RGB pixels.
    if picture.icc_profile and picture.icc_profile[16:20] == b"RGB ":
        options["icc_profile"] = picture.icc_profile
    with whole_file(path) as temporary:
        try:
            Image.fromarray(pixels).save(temporary, **options)
        except ValueError as error:
            raise OutputError(f"{path}: cannot be written in this format: {error}") from error


def resize_short_side(rgb: UInt8Array, short_side: int) -> UInt8Array:
    """Resize so that the shorter side has `short_side` pixels, with the contract's filter (Lanczos)."""
    height, width = rgb.shape[:2]
    scale = short_side / min(height, width)
    if scale == 1.0:
        return rgb
    size = (max(short_side, round(width * scale)), max(short_side, round(height * scale)))
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS))


def read_square(path: Path, size: int) -> UInt8Array:
    """A photograph with its shorter side resized to `size`, and of that the central square: `[size, size, 3]`."""
    return crop_centre(resize_short_side(read_picture(path).rgb, size), size)


def crop_centre(rgb: UInt8Array, size: int) -> UInt8Array:
    """The central `size` x `size` pixels."""
    top, left = (rgb.shape[0] - size) // 2, (rgb.shape[1] - size) // 2
    return rgb[top : top + size, left : left + size]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file, opened and found to be of a kind that we keep whole; decoding faults in the block become ours."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            _refuse_what_would_be_reduced(path, image)
            yield image
    except FileNotFoundError as error:
        raise PictureError(f"{path}: no such file") from error
    except UnidentifiedImageError as error:
        raise PictureError(f"{path}: not a picture that can be read, expected {', '.join(_FORMATS)}") from error
    except _DAMAGE as error:
        raise PictureError(f"{path}: cannot be read: {error}") from error


def _refuse_what_would_be_reduced(path: Path, image: Image.Image) -> None:
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise PictureError(f"{path}: has several frames, expected a single picture")
    if _bits_per_channel(path, image) > 8 or image.mode not in _MODES_8_BIT:
        kind = "more than 8 bits a channel" if _bits_per_channel(path, image) > 8 else f"colour mode {image.mode}"
        raise PictureError(f"{path}: {kind} is not supported, expected 8-bit RGB or grey")


def _bits_per_channel(path: Path, image: Image.Image) -> int:
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]  # IHDR: signature 8, length 4, type 4, width 4, height 4, then the bit depth
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(258, (8,))))  # tag 258: BitsPerSample
    return 8
