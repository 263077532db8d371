"""A decoded picture, and what its file held beside the pixels."""

from __future__ import annotations

import dataclasses
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.pictures.metadata import ORIENTATION, clean_exif, upright_xmp

UInt8Array = npt.NDArray[np.uint8]

# Rows that are worked on at a time where a whole picture would leave the processor's caches.
STRIP = 64
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif", ".bmp")
# Formats whose pixels Pillow returns unchanged, once files deeper than 8 bits are refused.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP")
# What Pillow raises for damaged files and metadata, depending on where its parsing trips.
PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError),
    *(IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, RuntimeError, AssertionError),
)
# By EXIF orientation: Pillow's name of the change that makes stored pixels upright, and of the one back.
UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSPOSE),
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    7: (Image.Transpose.TRANSVERSE, Image.Transpose.TRANSVERSE),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
}
# TIFF tags that an EXIF block of another format may have. Resolution is written separately.
_EXIF_TAGS = frozenset({270, 271, 272, 305, 306, 315, 316, 33432, 34665, 34853, *range(0x9C9B, 0x9CA0)})
# TIFF tags that a file has by how it was written, and does not get from another: how the pixels are stored, which of
# several pages it is, what is kept separately (orientation, XMP, colour profile), and the layers of the picture.
TIFF_STRUCTURE = frozenset(
    {*range(254, 260), *range(262, 267), 273, ORIENTATION, *range(277, 282), 284, *range(290, 294), 297, 317}
    | {*range(320, 326), 330, *range(332, 335), *range(338, 348), *range(512, 522), *range(529, 533), 700, 34675, 37724}
)


def pixels_of(image: Image.Image) -> UInt8Array:
    """The pixels of a Pillow image of 8 bits a channel, uint8 `[H, W]` or `[H, W, C]`.

    Strip by strip, because `np.asarray` collects the bytes of the whole picture twice: 14 ms instead of 60 for 12
    megapixels.
    """
    width, height = image.size
    bands = len(image.getbands())
    pixels = np.empty((height, width, bands) if bands > 1 else (height, width), dtype=np.uint8)
    for top in range(0, height, STRIP):
        bottom = min(top + STRIP, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels


@dataclasses.dataclass(frozen=True)
class JpegCoding:
    """How a JPEG file was coded.

    tables: quantisation table of 64 values for each component; fewer tables where the last ones are equal.
    subsampling: Pillow's number. 0: 4:4:4, 1: 4:2:2, 2: 4:2:0, -1: another one.
    progressive: coded in several scans.
    rgb: coded as RGB instead of YCbCr.
    """

    tables: list[list[int]]
    subsampling: int
    progressive: bool
    rgb: bool


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a picture's file held beside its pixels.

    format: Pillow's name of the format.
    orientation: EXIF orientation of the stored pixels, 1 to 8.
    exif: EXIF block without its thumbnail; empty if there was none.
    xmp: XMP packet; empty if there was none.
    dpi: horizontal and vertical resolution.
    jpeg: how a JPEG file was coded.
    parts: segments of a JPEG file or chunks of a PNG file, to be written back byte by byte.
    dropped: for people, what the file held and no result will have.
    """

    format: str
    orientation: int = 1
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    jpeg: JpegCoding | None = None
    parts: tuple[bytes, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def upright_exif(self) -> bytes:
        """The EXIF block for a file of another format, whose pixels are stored upright."""
        if self.format != "TIFF" or not self.exif:
            return clean_exif(self.exif, orientation=1)
        tags = Image.Exif()
        tags.load(self.exif)
        for tag in [tag for tag in tags if tag not in _EXIF_TAGS]:
            del tags[tag]
        return tags.tobytes() if len(tags) else b""

    @property
    def upright_xmp(self) -> bytes:
        """The XMP packet for a file whose pixels are stored upright."""
        return upright_xmp(self.xmp)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded picture, upright: the EXIF orientation has been applied.

    rgb: uint8 `[H, W, 3]`.
    alpha: uint8 `[H, W]`, None if the file has no transparency.
    icc_profile: the file's own, to be written back.
    grey: the file had one colour channel, and gets one when it is written.
    origin: None for a picture that comes from no file.
    """

    rgb: UInt8Array
    alpha: UInt8Array | None = None
    icc_profile: bytes | None = None
    grey: bool = False
    origin: Origin | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def image_of(picture: Picture, *, grey: bool) -> Image.Image:
    """A picture as a Pillow image, RGB or grey, with its alpha channel if it has one."""
    image = Image.fromarray(picture.rgb)
    if grey:
        image = image.convert("L")
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha))
    return image
