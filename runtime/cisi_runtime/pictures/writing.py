"""The one writer of picture files."""

from __future__ import annotations

import io
import os
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin, Image, TiffTags
from PIL.PngImagePlugin import PngInfo

from cisi_runtime.errors import NO_MEMORY, OutputError
from cisi_runtime.files import atomic_file
from cisi_runtime.pictures.metadata import with_jpeg_segments, with_png_chunks
from cisi_runtime.pictures.orientation import told_orientation
from cisi_runtime.pictures.picture import (
    PILLOW_ERRORS,
    STRIP,
    SUFFIXES,
    TIFF_STRUCTURE,
    UPRIGHT,
    Origin,
    Picture,
    image_of,
)
from cisi_runtime.pictures.reading import decode_picture
from cisi_runtime.pictures.save_buffer import save_buffer

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_FORMAT_OF = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".avif": "AVIF",
    ".bmp": "BMP",
}
# Formats by Pillow's names.
FORMATS = tuple(dict.fromkeys(_FORMAT_OF.values()))
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "PNG": {"compress_level": 3},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_deflate"},
    "AVIF": {"quality": 90, "subsampling": "4:4:4"},
    "BMP": {},
}
# Formats that hold no alpha channel.
NO_ALPHA = ("JPEG", "BMP")
_LOSSY = ("JPEG", "AVIF")
# Formats without a grey mode, with alpha or at all.
_NO_GREY, _NO_GREY_ALPHA = ("WEBP",), ("WEBP", "AVIF")
_TIFF_XMP = 700
# JPEG segments by marker, and PNG chunks by name, that are not written into other formats.
_OTHER_METADATA = {
    b"\xed": "IPTC",
    b"\xfe": "comment",
    b"tEXt": "text",
    b"zTXt": "compressed text",
    b"gAMA": "gamma",
    b"cHRM": "chromaticities",
    b"cICP": "colour coding",
}


def format_of(path: PurePath | str) -> str:
    """Pillow's name of the format that a file name asks for. Raises OutputError for an unknown suffix."""
    suffix = PurePath(path).suffix.lower()
    if suffix not in _FORMAT_OF:
        raise OutputError(
            f"{path}: unknown picture format {suffix!r}, expected one of {', '.join(SUFFIXES)}, or a folder"
        )
    return _FORMAT_OF[suffix]


def check_alpha(file_format: str, name: str, *, has_alpha: bool) -> None:
    """Raise OutputError when a format cannot hold a picture with alpha. `name` is for messages."""
    if has_alpha and file_format in NO_ALPHA:
        raise OutputError(f"{name}: {file_format} cannot hold the picture's alpha channel, expected PNG, WebP or TIFF")


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture in the format of its name, completely or not at all (see `encode_picture`). Raises
    OutputError."""
    file_format = format_of(path)
    check_alpha(file_format, str(path), has_alpha=picture.alpha is not None)
    data = encode_picture(picture, file_format, str(path))
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)


def encode_picture(picture: Picture, file_format: str, name: str) -> bytes:
    """The bytes of a picture file. `name` is for messages. Raises OutputError.

    PNG, WebP, TIFF and BMP are lossless. JPEG uses the quantisation tables and the subsampling of the JPEG file that
    the picture comes from, otherwise quality 95 without subsampling. AVIF uses quality 90 without subsampling.
    Metadata, colour profile and resolution are written where the format has a place for them. Within one format the
    pixels keep the orientation in which the file stored them; in another format they are upright.
    """
    origin = picture.origin
    orientation = origin.orientation if origin is not None and origin.format == file_format else 1
    data = _encoded(picture, file_format, name, orientation)
    if origin is None or not (origin.exif or origin.xmp or origin.parts):
        return data
    try:
        told = told_orientation(data)
    except PILLOW_ERRORS as error:
        raise OutputError(f"{name}: cannot be written in this format: what was written cannot be read") from error
    if told == orientation:
        return data
    # Its metadata are damaged, and tell something else than those of the file did. The pixels follow what they tell.
    return _encoded(picture, file_format, name, told)


def _encoded(picture: Picture, file_format: str, name: str, orientation: int) -> bytes:
    """The file with pixels stored in this EXIF orientation."""
    origin = picture.origin
    target = io.BytesIO()
    try:
        image = image_of(picture, grey=_is_grey(picture, file_format))
        if orientation != 1:
            image = image.transpose(UPRIGHT[orientation][1])
        parts = origin.parts if origin is not None and origin.format == file_format else ()
        options = _options(picture, file_format)
        # A progressive JPEG is coded in one piece, too large for Pillow's buffer where nothing is smooth.
        size = 4 * picture.rgb.shape[0] * picture.rgb.shape[1] if options.get("progressive") else 0
        with save_buffer(size):
            image.save(target, format=file_format, **options)
    except MemoryError as error:
        raise OutputError(f"{name}: {NO_MEMORY}") from error
    except PILLOW_ERRORS as error:
        reason = str(error) or type(error).__name__
        raise OutputError(f"{name}: cannot be written in this format: {reason}") from error
    data = target.getvalue()
    if parts:
        data = with_jpeg_segments(data, parts) if file_format == "JPEG" else with_png_chunks(data, parts)
    return data


def dropped_metadata(picture: Picture, file_format: str) -> list[str]:
    """For people: what the picture's file held and a file of this format, written by `encode_picture`, does not."""
    origin = picture.origin
    if origin is None:
        return []
    dropped = list(origin.dropped)
    if origin.format == file_format:
        if origin.jpeg is not None and origin.jpeg.subsampling < 0 and not picture.grey:
            dropped.append("its chroma subsampling (written 4:4:4)")
        return dropped
    kinds = {part[4:8] if origin.format == "PNG" else part[1:2] for part in origin.parts}
    dropped += [what for kind, what in _OTHER_METADATA.items() if kind in kinds]
    if file_format == "TIFF" and _tiff_options(origin.upright_exif, b"") is None:
        dropped.append("EXIF (damaged)")
    if file_format == "BMP":
        dropped += [what for what, block in (("EXIF", origin.exif), ("XMP", origin.xmp)) if block]
    if picture.icc_profile and "icc_profile" not in _options(picture, file_format):
        dropped.append("colour profile")
    return dropped


def largest_change(picture: Picture, data: bytes, file_format: str, hole_mask: BoolArray) -> int:
    """The largest change of a known pixel, in grey levels, from a picture to the file that was made of it.

    data: the file. hole_mask: bool `[H, W]`. A lossless format is 0 without a check.
    """
    if file_format not in _LOSSY:
        return 0
    decoded = decode_picture(data, "the result", max_pixels=hole_mask.size)
    largest = _largest_difference(picture.rgb, decoded.rgb, hole_mask)
    if picture.alpha is not None and decoded.alpha is not None:
        largest = max(largest, _largest_difference(picture.alpha, decoded.alpha, hole_mask))
    return largest


def _largest_difference(before: UInt8Array, after: UInt8Array, hole_mask: BoolArray) -> int:
    """Outside of the hole. Both uint8 `[H, W]` or `[H, W, 3]`."""
    largest = 0
    for top in range(0, hole_mask.shape[0], STRIP):
        rows = slice(top, top + STRIP)
        difference = np.maximum(before[rows], after[rows])
        difference -= np.minimum(before[rows], after[rows])
        difference[hole_mask[rows]] = 0
        largest = max(largest, int(difference.max()))
    return largest


def _is_grey(picture: Picture, file_format: str) -> bool:
    """Whether the picture was grey and this format has a grey mode for it."""
    return picture.grey and file_format not in (_NO_GREY if picture.alpha is None else _NO_GREY_ALPHA)


def _options(picture: Picture, file_format: str) -> dict[str, Any]:
    """Options of Pillow's writers: the coding, and the metadata that they can write."""
    origin = picture.origin
    options = dict(_OPTIONS[file_format])
    is_same = origin is not None and origin.format == file_format
    has_parts = is_same and origin is not None and bool(origin.parts)
    if origin is not None and not has_parts:
        options |= _metadata(origin, file_format)
    if origin is not None and origin.jpeg is not None and file_format == "JPEG":
        jpeg = origin.jpeg
        options |= {"qtables": jpeg.tables, "subsampling": max(jpeg.subsampling, 0), "keep_rgb": jpeg.rgb}
        options["progressive"] = jpeg.progressive
        del options["quality"]
    is_grey = _is_grey(picture, file_format)
    if file_format == "AVIF":
        options["max_threads"] = _avif_threads()
    if file_format == "AVIF" and is_grey:
        del options["subsampling"]  # with it the file would be in colour
    # Bytes 16 to 20 of a profile name its colour space. A grey profile does not fit RGB pixels.
    space = b"GRAY" if is_grey else b"RGB "
    fits = is_same or (picture.icc_profile or b"")[16:20] == space
    if picture.icc_profile and fits and not has_parts and file_format != "BMP":
        options["icc_profile"] = picture.icc_profile
    return options


def _avif_threads() -> int:
    """At least two: with one, libavif (1.4) writes other bytes than with several, whose number does not matter."""
    return max(2, AvifImagePlugin.DEFAULT_MAX_THREADS or os.cpu_count() or 1)


def _metadata(origin: Origin, file_format: str) -> dict[str, Any]:
    """Options of Pillow's writers for the metadata that they can write."""
    if file_format == "BMP":
        return {"dpi": origin.dpi} if origin.dpi else {}
    same = origin.format == file_format
    exif, xmp = (origin.exif, origin.xmp) if same else (origin.upright_exif, origin.upright_xmp)
    options: dict[str, Any] = {"exif": exif} if exif else {}
    if file_format == "TIFF":
        options = _tiff_metadata(exif, xmp)
    elif xmp and file_format == "PNG":
        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
        options["pnginfo"] = text
    elif xmp:
        options["xmp"] = xmp
    if origin.dpi and file_format in ("JPEG", "PNG", "TIFF"):
        options["dpi"] = origin.dpi
    return options


def _tiff_metadata(exif: bytes, xmp: bytes) -> dict[str, Any]:
    """EXIF that is too damaged to be written is left out."""
    options = _tiff_options(exif, xmp)
    return (_tiff_options(b"", xmp) or {}) if options is None else options


def _tiff_options(exif: bytes, xmp: bytes) -> dict[str, Any] | None:
    """None when Pillow cannot read this EXIF block, or cannot write what it read."""
    tags = Image.Exif()
    try:
        tags.load(exif)
        for tag in TIFF_STRUCTURE.intersection(tags):
            del tags[tag]  # such as a camera's PhotometricInterpretation, which would tell of other pixels
        if xmp:
            tags[_TIFF_XMP] = xmp
        # Pillow cannot write the directories of EXIF and GPS into a compressed file ("Error setting from dictionary").
        has_directories = any(tag in tags for tag in TiffTags.TAGS_V2_GROUPS)
        options: dict[str, Any] = {"exif": tags, **({"compression": "raw"} if has_directories else {})}
        Image.new("L", (1, 1)).save(io.BytesIO(), format="TIFF", **(_OPTIONS["TIFF"] | options))
    except PILLOW_ERRORS:
        return None
    return options
