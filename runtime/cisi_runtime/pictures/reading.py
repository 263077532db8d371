"""The one reader of picture files and masks."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
import struct
from collections.abc import Iterator
from math import inf
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, JpegImagePlugin, TiffTags, UnidentifiedImageError

from cisi_runtime.contract import MASK_THRESHOLD
from cisi_runtime.errors import NO_MEMORY, DataError, MaskError, PictureError, TooManyPixelsError
from cisi_runtime.pictures.metadata import (
    bytes_behind_jpeg,
    clean_exif,
    clean_photoshop,
    clean_xmp,
    jpeg_segments,
    left_out_of_jpeg,
    left_out_of_png,
    png_chunks,
    upright_xmp,
)
from cisi_runtime.pictures.orientation import orientation_of, orientation_of_head
from cisi_runtime.pictures.picture import (
    FORMATS,
    PILLOW_ERRORS,
    SUFFIXES,
    TIFF_STRUCTURE,
    UPRIGHT,
    JpegCoding,
    Origin,
    Picture,
    pixels_of,
)

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# Larger photographs are refused unless the caller allows them. As RGB this is 240 MB.
MAX_PIXELS = 80_000_000

# Pillow's modes of at most 8 bits a channel, other than CMYK and its like.
MODES_8_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
_GREY_MODES = ("1", "L", "LA")
_PHOTOSHOP, _IPTC = 34377, 33723
# EXIF orientations from this one on exchange width and height.
_FIRST_TURNED = 5


def read_picture(path: Path, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a photograph: JPEG, PNG, WebP, TIFF, AVIF or BMP with 8 bits per channel. Grey and palette become RGB.

    Raises PictureError for a file that is missing, damaged, of another format, animated, CMYK, larger than
    `max_pixels`, or deeper than 8 bits, which Pillow would silently reduce.
    """
    return decode_picture(read_file(path), str(path), max_pixels)


def read_file(path: Path) -> bytes:
    """The bytes of a picture file. Raises PictureError."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise PictureError(f"{path}: no such file") from error
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise PictureError(f"{path}: {NO_MEMORY}") from error


def decode_picture(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Picture:
    """As `read_picture`, from the bytes of a file. `name` is for messages."""
    with _opened(data, name, max_pixels) as image:
        image.load()  # makes the pixels of a TIFF file upright and drops its orientation
        orientation = orientation_of(image) if image.format != "TIFF" else 1
        origin = _origin(image, data, orientation)
        return picture_of(image if orientation == 1 else image.transpose(UPRIGHT[orientation][0]), origin)


def picture_of(image: Image.Image, origin: Origin | None = None) -> Picture:
    """A Pillow image of a mode in `MODES_8_BIT`, as it stands: an orientation that it may name is not applied."""
    is_grey, icc_profile = image.mode in _GREY_MODES, image.info.get("icc_profile")
    if image.has_transparency_data:
        rgba = pixels_of(image.convert("RGBA"))
        rgb, alpha = np.ascontiguousarray(rgba[..., :3]), np.ascontiguousarray(rgba[..., 3])
        return Picture(rgb, alpha, icc_profile, is_grey, origin)
    rgb = pixels_of(image if image.mode == "RGB" else image.convert("RGB"))
    return Picture(rgb, None, icc_profile, is_grey, origin)


def find_pictures(folder: Path) -> list[Path]:
    """Files with a picture's suffix in a folder and below, sorted, hidden ones left out. So are masks that lie beside
    their photograph, as `a.mask.png` beside `a.jpg`. Raises DataError for a folder that does not exist."""
    return sorted(_photographs_and_masks(folder)[0])


def left_out_masks(folder: Path) -> str | None:
    """For people: that `find_pictures` leaves masks out; None where there are none."""
    masks = len(_photographs_and_masks(folder)[1])
    return f"{folder}: masks beside their photographs are left out, {masks}" if masks else None


def _photographs_and_masks(folder: Path) -> tuple[list[Path], list[Path]]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    paths = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    photographs = {path.with_suffix("") for path in paths if not path.stem.endswith(".mask")}
    masks = [path for path in paths if path.stem.endswith(".mask") and _unmarked(path) in photographs]
    left_out = set(masks)
    return [path for path in paths if path not in left_out], masks


def _unmarked(mask: Path) -> Path:
    """The name of the photograph, without its suffix."""
    return mask.with_name(mask.stem.removesuffix(".mask"))


@dataclasses.dataclass(frozen=True)
class PictureHead:
    """What the head of a picture file says. width, height: of the upright picture. format: Pillow's name."""

    width: int
    height: int
    format: str


def read_head(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> PictureHead:
    """Look at a file without decoding its pixels. `name` is for messages.

    Raises what `decode_picture` raises for a kind of file that it refuses.
    """
    with _opened(data, name, max_pixels) as image:
        width, height = image.size
        # Pillow gives a TIFF file's size upright already.
        if image.format != "TIFF" and orientation_of_head(image, data) >= _FIRST_TURNED:
            width, height = height, width
        return PictureHead(width, height, _format(image))


def check_picture(path: Path) -> None:
    """Raise what `read_picture` would raise. A JPEG file is decoded at an eighth of its size, which is quicker and
    still finds truncated ones."""
    data = read_file(path)
    with _opened(data, str(path), MAX_PIXELS) as image:
        image.draft("RGB", (1, 1))
        image.load()
        _origin(image, data, orientation=1)


def read_mask(path: Path, size: tuple[int, int]) -> BoolArray:
    """Read a hole mask for a picture of `size` (height, width): bool `[H, W]`, True where it is 128 or above.

    1-bit, grey, palette and RGB(A) files are accepted. Their colour channels must be equal; alpha is ignored. A mask of
    0 and 1 is one of 0 and 255. Raises PictureError, also for channels that differ, for a mask that is dark everywhere
    and not black, for one of a single colour with a shape in its alpha, and for another size.
    """
    # The size must match in any case, so no other limit applies.
    hole_mask = decode_mask(read_file(path), str(path), max(MAX_PIXELS, size[0] * size[1]))
    check_mask_size(hole_mask.shape, str(path), size)
    return hole_mask


def decode_mask(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> BoolArray:
    """As `read_mask`, of any size, from the bytes of a file. `name` is for messages."""
    levels = decode_mask_levels(data, name, max_pixels)
    brightest = int(levels.max())
    # No picture that somebody drew: an array of bool that became a file.
    if brightest == 1:
        levels = levels * np.uint8(255)
    elif 0 < brightest < MASK_THRESHOLD:
        raise MaskError(
            f"{name}: its brightest pixel is {brightest} of 255, expected white (128 and above) in the hole and black "
            "elsewhere"
        )
    hole_mask: BoolArray = levels >= MASK_THRESHOLD
    return hole_mask


def decode_mask_levels(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    """As `decode_mask`, before the threshold: uint8 `[H, W]`."""
    with _opened(data, name, max_pixels) as image:
        return mask_levels(ImageOps.exif_transpose(image), name)


def mask_levels(image: Image.Image, name: str) -> UInt8Array:
    """The levels of a mask in a mode of `MODES_8_BIT`, uint8 `[H, W]`. Raises MaskError where its colour channels
    differ, and where they are of one colour and alpha is not."""
    if image.mode in _GREY_MODES and not image.has_transparency_data:
        return pixels_of(image if image.mode == "L" else image.convert("L"))
    rgb = pixels_of(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    grey = rgb[..., 0]
    if not (np.array_equal(grey, rgb[..., 1]) and np.array_equal(grey, rgb[..., 2])):
        raise MaskError(f"{name}: the colour channels differ, expected a black and white mask (white = hole)")
    if rgb.shape[2] == 4 and (grey == grey.flat[0]).all() and (rgb[..., 3] != rgb[0, 0, 3]).any():
        raise MaskError(f"{name}: is of one colour, and drawn in alpha: expected a black and white mask (white = hole)")
    return grey


def check_mask_size(mask_size: tuple[int, ...], name: str, size: tuple[int, int]) -> None:
    """Raise MaskError for a mask of another height and width than the picture's."""
    if mask_size != size:
        height, width = mask_size
        raise MaskError(f"{name}: the mask is {width}x{height} pixels, expected {size[1]}x{size[0]} as the picture")


@contextlib.contextmanager
def _opened(data: bytes, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open a file of a kind that can be read without loss. What Pillow raises in the block becomes PictureError."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_lossy(data, name, image)
            if image.width * image.height > max_pixels:
                raise TooManyPixelsError(
                    f"{name}: {image.width}x{image.height} is {image.width * image.height / 1e6:.4g} megapixels, "
                    f"expected at most {max_pixels / 1e6:g}"
                )
            _scale_transparent_grey(data, image)
            yield image
    except UnidentifiedImageError as error:
        raise PictureError(f"{name}: not a picture that can be read, expected {', '.join(FORMATS)}") from error
    except MemoryError as error:
        raise PictureError(f"{name}: {NO_MEMORY}") from error
    except PILLOW_ERRORS as error:
        raise PictureError(f"{name}: cannot be read: {str(error) or type(error).__name__}") from error


def _refuse_lossy(data: bytes, name: str, image: Image.Image) -> None:
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise PictureError(f"{name}: has several frames, expected a single picture")
    if _bits_per_channel(data, image) > 8 or image.mode not in MODES_8_BIT:
        kind = "more than 8 bits a channel" if _bits_per_channel(data, image) > 8 else f"colour mode {image.mode}"
        raise PictureError(f"{name}: {kind} is not supported, expected 8-bit RGB or grey")
    if image.format == "AVIF" and "icc_profile" not in image.info and (colours := _avif_colours(data)) is not None:
        raise PictureError(f"{name}: its colours (primaries {colours[0]}, transfer {colours[1]}) are not sRGB's")


def _scale_transparent_grey(data: bytes, image: Image.Image) -> None:
    """Of a grey PNG file of 2 or 4 bits Pillow scales the pixels to 0 to 255, and not the level that its tRNS chunk
    makes transparent."""
    level = image.info.get("transparency")
    if image.format == "PNG" and isinstance(level, int) and image.mode == "L" and (bits := data[24]) < 8:
        image.info["transparency"] = level * (255 // (2**bits - 1))


def _avif_colours(data: bytes) -> tuple[int, int] | None:
    """Primaries and transfer function of an AVIF file (ITU-T H.273), None for those of sRGB or BT.709 and for a file
    without any. Pillow neither reports nor writes them, so other colours would silently change."""
    colour_box = re.search(rb"colrnclx(..)(..)", data[:65536], re.DOTALL)
    if colour_box is None:
        return None
    primaries, transfer = (int.from_bytes(value, "big") for value in colour_box.groups())
    return None if primaries in (1, 2) and transfer in (1, 2, 6, 13) else (primaries, transfer)


def _bits_per_channel(data: bytes, image: Image.Image) -> int:
    if image.format == "PNG":
        return data[24]  # IHDR: signature 8, length 4, type 4, width 4, height 4, then the bit depth
    if image.format == "TIFF":
        return int(max(getattr(image, "tag_v2", {}).get(258, (8,))))  # tag 258: BitsPerSample
    if image.format == "AVIF":
        # Third byte of the configuration: tier, high_bitdepth, twelve_bit, ... (AV1 in ISOBMFF, section 2.3.3).
        configurations = re.finditer(rb"av1C..(.)", data[:65536], re.DOTALL)
        return 10 if any(match.group(1)[0] & 0x40 for match in configurations) else 8
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
        dropped = left_out_of_jpeg(data)
        if behind:
            dropped += (f"{behind} bytes behind the picture (a second picture, a gain map or a video)",)
    elif image.format == "PNG":
        parts = png_chunks(data)
        dropped = left_out_of_png(data, parts)
    elif image.format == "TIFF":
        exif, xmp = _tiff_tags(image), upright_xmp(xmp)
        dpi = dpi if {282, 283} <= set(getattr(image, "tag_v2", {})) else None
    return Origin(
        format=_format(image),
        orientation=orientation,
        exif=exif,
        xmp=xmp,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and all(0 < float(x) < inf for x in dpi) else None,
        jpeg=jpeg,
        parts=parts,
        dropped=dropped,
    )


def _format(image: Image.Image) -> str:
    """Pillow's name of the format, but JPEG for a JPEG file with more pictures behind the first."""
    return "JPEG" if isinstance(image, JpegImagePlugin.JpegImageFile) else str(image.format)


def _jpeg_coding(image: JpegImagePlugin.JpegImageFile) -> JpegCoding:
    # An entry of `layer`: component, horizontal and vertical sampling, number of the quantisation table.
    tables = [list(image.quantization[layer[3]]) for layer in image.layer]
    while len(tables) > 1 and tables[-1] == tables[-2]:
        del tables[-1]
    is_rgb = image.mode == "RGB" and image.info.get("adobe_transform") == 0
    return JpegCoding(tables, JpegImagePlugin.get_sampling(image), bool(image.info.get("progressive")), is_rgb)


def _tiff_tags(image: Image.Image) -> bytes:
    """Tags of a TIFF file that do not describe how its pixels are stored, as an EXIF block; empty if there are none."""
    source, tags = image.getexif(), Image.Exif()  # a new block: that of a BigTIFF file is not valid EXIF
    for tag, value in source.items():
        if tag in TiffTags.TAGS_V2_GROUPS:
            tags.get_ifd(tag).update(source.get_ifd(tag))
        elif tag not in TIFF_STRUCTURE:
            tags[tag] = clean_photoshop(value) if tag == _PHOTOSHOP and isinstance(value, bytes) else value
    if isinstance(tags.get(_IPTC), tuple):  # some writers count it in words of four bytes
        order = "<" if image.tag_v2.prefix == b"II" else ">"  # type: ignore[attr-defined]
        tags[_IPTC] = struct.pack(f"{order}{len(tags[_IPTC])}I", *tags[_IPTC])
    has_directories = any(source.get_ifd(tag) for tag in TiffTags.TAGS_V2_GROUPS if tag in source)
    return tags.tobytes() if len(tags) or has_directories else b""
