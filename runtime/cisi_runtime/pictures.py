"""The one reader of picture files."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import struct
import zlib
from collections.abc import Iterator
from math import inf
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, JpegImagePlugin, TiffTags, UnidentifiedImageError

from cisi_runtime.contract import MASK_THRESHOLD
from cisi_runtime.errors import DataError, PictureError
from cisi_runtime.metadata import (
    bytes_behind_jpeg,
    clean_exif,
    clean_photoshop,
    clean_xmp,
    jpeg_segments,
    png_chunks,
    upright_xmp,
)

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif", ".bmp")
# Photographs of more pixels are refused, unless it is said that they are welcome: as RGB this is 240 MB.
MOST_PIXELS = 80_000_000

# Formats whose pixels Pillow gives back as they are, once deeper files are refused.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP")
_MODES_8_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_GREY_MODES = ("1", "L", "LA")
# What Pillow raises for damaged files and metadata, depending on where its parsing trips.
PILLOW_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError),
    *(IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, RuntimeError, AssertionError),
)
_ORIENTATION, _PHOTOSHOP, _IPTC = 0x0112, 34377, 33723
# Pillow's name of the change that makes pixels stored in an EXIF orientation upright, and of the one back.
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_LEFT_RIGHT),
    3: (Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_TOP_BOTTOM),
    5: (Image.Transpose.TRANSPOSE, Image.Transpose.TRANSPOSE),
    6: (Image.Transpose.ROTATE_270, Image.Transpose.ROTATE_90),
    7: (Image.Transpose.TRANSVERSE, Image.Transpose.TRANSVERSE),
    8: (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270),
}
# Tags of a TIFF file that say how its pixels are stored or which of several pages it is, are kept apart (orientation,
# XMP, colour profile), or hold the layers that a picture was made of.
_TIFF_STRUCTURE = frozenset(
    {*range(254, 260), *range(262, 267), 273, _ORIENTATION, *range(277, 282), 284, *range(290, 294), 297, 317}
    | {*range(320, 326), 330, *range(332, 335), *range(338, 348), *range(512, 522), *range(529, 533), 700, 34675, 37724}
)
# Tags that an EXIF block of another format may have; resolution is written on its own.
_EXIF_TAGS = frozenset({270, 271, 272, 305, 306, 315, 316, 33432, 34665, 34853, *range(0x9C9B, 0x9CA0)})


@dataclasses.dataclass(frozen=True)
class JpegCoding:
    """How a JPEG file was coded. tables: a quantisation table of 64 values for each component, fewer where the last
    ones are equal; subsampling: Pillow's number, 0: 4:4:4, 1: 4:2:2, 2: 4:2:0, -1: none of them; rgb: not as YCbCr."""

    tables: list[list[int]]
    subsampling: int
    progressive: bool
    rgb: bool


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a picture's file held beside its pixels.

    format: Pillow's name of it; orientation: EXIF's, 1 to 8, in which its pixels are stored; exif, xmp: blocks, empty
    where there is none, exif without thumbnail; dpi: horizontal and vertical; parts: segments of a JPEG, chunks of a
    PNG file, to be written as they are; dropped: what the file held and no result has, for people.
    """

    format: str
    orientation: int = 1
    exif: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    jpeg: JpegCoding | None = None
    parts: tuple[bytes, ...] = ()
    dropped: tuple[str, ...] = ()

    def stored(self, image: Image.Image) -> Image.Image:
        """An upright picture as the file stores it."""
        return image if self.orientation == 1 else image.transpose(_UPRIGHT[self.orientation][1])

    @property
    def upright_exif(self) -> bytes:
        """The EXIF block for a file of another format, which stores its pixels upright."""
        if self.format != "TIFF" or not self.exif:
            return clean_exif(self.exif, orientation=1)
        tags = Image.Exif()
        tags.load(self.exif)
        for tag in [tag for tag in tags if tag not in _EXIF_TAGS]:
            del tags[tag]
        return tags.tobytes() if len(tags) else b""

    @property
    def upright_xmp(self) -> bytes:
        """The XMP packet for a file that stores its pixels upright."""
        return upright_xmp(self.xmp)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A decoded picture, upright (EXIF orientation applied).

    rgb: uint8 `[H, W, 3]`; alpha: uint8 `[H, W]` or None; icc_profile: the file's own, to be written back; grey: the
    file had one channel, and has one when it is written; origin: None for a picture that comes from no file.
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


def read_picture(path: Path, most_pixels: int = MOST_PIXELS) -> Picture:
    """Read a photograph: JPEG, PNG, WebP, TIFF, AVIF or BMP with 8 bits a channel; grey and palette become RGB.

    Raises PictureError for a file that is missing, damaged, of another format, animated, CMYK, of more pixels, or
    deeper than 8 bits (Pillow would cut such a picture to 8 bits in silence).
    """
    return decode_picture(read_file(path), str(path), most_pixels)


def read_file(path: Path) -> bytes:
    """The bytes of a picture's file. Raises PictureError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PictureError(f"{path}: no such file") from error
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode_picture(data: bytes, name: str, most_pixels: int = MOST_PIXELS) -> Picture:
    """As `read_picture`, from the bytes of a file; `name` is for messages."""
    with _opened(data, name, most_pixels) as image:
        image.load()  # a TIFF file's pixels are upright after this, and its orientation is forgotten
        orientation = _orientation(image) if image.format != "TIFF" else 1
        origin = _origin(image, data, orientation)
        is_grey, icc_profile = image.mode in _GREY_MODES, image.info.get("icc_profile")
        upright = image if orientation == 1 else image.transpose(_UPRIGHT[orientation][0])
        if image.has_transparency_data:
            rgba = np.asarray(upright.convert("RGBA"))
            rgb, alpha = np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
            return Picture(rgb, alpha, icc_profile, is_grey, origin)
        rgb = np.asarray(upright if upright.mode == "RGB" else upright.convert("RGB"))
        return Picture(rgb, None, icc_profile, is_grey, origin)


def find_pictures(folder: Path) -> list[Path]:
    """Files with a picture's suffix, in the folder and below, sorted; none that are hidden. Raises DataError for no
    such folder."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def check_picture(path: Path) -> None:
    """Raise what `read_picture` would raise, also for a truncated file; a JPEG is decoded at an eighth of its size."""
    with _opened(read_file(path), str(path), MOST_PIXELS) as image:
        image.draft("RGB", (1, 1))
        image.load()


def read_mask(path: Path, size: tuple[int, int]) -> BoolArray:
    """Read a hole mask for a picture of `size` (height, width): bool `[H, W]`, True = hole = 128 and above.

    1-bit, grey, palette and RGB(A) files are accepted; the colour channels must be equal and alpha is ignored.
    Raises PictureError also for channels that differ and for another size.
    """
    return decode_mask(read_file(path), str(path), size)


def decode_mask(data: bytes, name: str, size: tuple[int, int]) -> BoolArray:
    """As `read_mask`, from the bytes of a file; `name` is for messages."""
    expected = f"{size[1]}x{size[0]}"
    # A mask of a larger size than the picture is wrong whatever its size is.
    with _opened(data, name, max(MOST_PIXELS, size[0] * size[1])) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.size != size[::-1]:
            found = f"{upright.width}x{upright.height}"
            raise PictureError(f"{name}: the mask is {found} pixels, expected {expected} as the picture")
        if upright.mode in _GREY_MODES:
            grey = np.asarray(upright.convert("L"))
        else:
            rgb = np.asarray(upright.convert("RGBA" if upright.has_transparency_data else "RGB"))
            grey = rgb[..., 0]
            if not (np.array_equal(grey, rgb[..., 1]) and np.array_equal(grey, rgb[..., 2])):
                raise PictureError(
                    f"{name}: the colour channels differ, expected a black and white mask (white = hole)"
                )
    hole_mask: BoolArray = grey >= MASK_THRESHOLD
    return hole_mask


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
def _opened(data: bytes, name: str, most_pixels: int) -> Iterator[Image.Image]:
    """The file, opened and found to be of a kind that we keep whole; decoding faults in the block become ours."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _refuse_what_would_be_reduced(data, name, image)
            if image.width * image.height > most_pixels:
                raise PictureError(
                    f"{name}: {image.width}x{image.height} is {image.width * image.height / 1e6:.4g} megapixels, "
                    f"expected at most {most_pixels / 1e6:g}"
                )
            yield image
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: not a picture that can be read, expected {', '.join(_FORMATS)}") from error
    except PILLOW_ERRORS as error:
        raise PictureError(f"{name}: cannot be read: {str(error) or type(error).__name__}") from error


def _refuse_what_would_be_reduced(data: bytes, name: str, image: Image.Image) -> None:
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise PictureError(f"{name}: has several frames, expected a single picture")
    if _bits_per_channel(data, image) > 8 or image.mode not in _MODES_8_BIT:
        kind = "more than 8 bits a channel" if _bits_per_channel(data, image) > 8 else f"colour mode {image.mode}"
        raise PictureError(f"{name}: {kind} is not supported, expected 8-bit RGB or grey")
    if image.format == "AVIF" and "icc_profile" not in image.info and (colours := _avif_colours(data)) is not None:
        raise PictureError(f"{name}: its colours (primaries {colours[0]}, transfer {colours[1]}) are not sRGB's")


def _avif_colours(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer function of an AVIF file (ITU-T H.273), if they are others than those of sRGB, BT.709 or
    none: Pillow neither says nor writes them, and the colours would be taken for others."""
    found = re.search(rb"colrnclx(..)(..)", data[:65536], re.DOTALL)
    if found is None:
        return None
    primaries, transfer = (int.from_bytes(value, "big") for value in found.groups())
    return None if primaries in (1, 2) and transfer in (1, 2, 6, 13) else (primaries, transfer)


def _orientation(image: Image.Image) -> int:
    """As the file says, 1 for one whose EXIF block is damaged or says something else."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except PILLOW_ERRORS:
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _bits_per_channel(data: bytes, image: Image.Image) -> int:
    if image.format == "PNG":
        return data[24]  # IHDR: signature 8, length 4, type 4, width 4, height 4, then the bit depth
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(258, (8,))))  # tag 258: BitsPerSample
    if image.format == "AVIF":
        # Third byte of the configuration: tier, high_bitdepth, twelve_bit, ... (AV1 in ISOBMFF, section 2.3.3).
        high = any(found.group(1)[0] & 0x40 for found in re.finditer(rb"av1C..(.)", data[:65536], re.DOTALL))
        return 10 if high else 8
    return 8


def _origin(image: Image.Image, data: bytes, orientation: int) -> Origin:
    info = image.info
    exif, jpeg = clean_exif(info.get("exif", b"")), None
    parts: tuple[bytes, ...] = ()
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    xmp = clean_xmp(xmp.encode() if isinstance(xmp, str) else xmp)
    dropped: tuple[str, ...] = ()
    dpi = info.get("dpi")
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        jpeg = _jpeg_coding(image)
        parts = jpeg_segments(data)
        behind = bytes_behind_jpeg(data)
        if behind:
            dropped = (f"{behind} bytes behind the picture (a second picture, a gain map or a video)",)
    elif image.format == "PNG":
        parts = png_chunks(data)
    elif image.format == "TIFF":
        exif, xmp = _tiff_tags(image), upright_xmp(xmp)
        dpi = dpi if {282, 283} <= set(getattr(image, "tag_v2", {})) else None
    return Origin(
        format="JPEG" if jpeg is not None else str(image.format),
        orientation=orientation,
        exif=exif,
        xmp=xmp,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(0 < float(x) < inf for x in dpi) else None,
        jpeg=jpeg,
        parts=parts,
        dropped=dropped,
    )


def _jpeg_coding(image: JpegImagePlugin.JpegImageFile) -> JpegCoding:
    # An entry of `layer`: component, horizontal and vertical sampling, number of its quantisation table.
    tables = [list(image.quantization[layer[3]]) for layer in image.layer]
    while len(tables) > 1 and tables[-1] == tables[-2]:
        del tables[-1]
    is_rgb = image.mode == "RGB" and image.info.get("adobe_transform") == 0
    return JpegCoding(tables, JpegImagePlugin.get_sampling(image), bool(image.info.get("progressive")), is_rgb)


def _tiff_tags(image: Image.Image) -> bytes:
    """What a TIFF file says that is not about how its pixels are stored, as an EXIF block; empty if nothing."""
    source, tags = image.getexif(), Image.Exif()  # a block of its own, since that of a BigTIFF file is none of EXIF's
    for tag, value in source.items():
        if tag in TiffTags.TAGS_V2_GROUPS:
            tags.get_ifd(tag).update(source.get_ifd(tag))
        elif tag not in _TIFF_STRUCTURE:
            tags[tag] = clean_photoshop(value) if tag == _PHOTOSHOP and isinstance(value, bytes) else value
    if isinstance(tags.get(_IPTC), tuple):  # bytes that some writers count in words of four
        order = "<" if image.tag_v2.prefix == b"II" else ">"  # type: ignore[attr-defined]
        tags[_IPTC] = struct.pack(f"{order}{len(tags[_IPTC])}I", *tags[_IPTC])
    has_directories = any(source.get_ifd(tag) for tag in TiffTags.TAGS_V2_GROUPS if tag in source)
    return tags.tobytes() if len(tags) or has_directories else b""
