"""Metadata of JPEG and PNG files, kept byte by byte where input and output have the same format.

Pillow returns EXIF, XMP and the colour profile, but not IPTC, comments, PNG's colour chunks or its text. A rewritten
EXIF block loses the maker's notes, whose offsets count from its start. So JPEG segments and PNG chunks are copied as
they are.

Some are left out, because they would show what was removed from the picture or say something untrue: thumbnails,
indices of pictures and videos behind the first one, whose offsets lead nowhere in another file, and signatures of the
contents. Previews in a maker's notes are not recognised, and stay.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

_EXIF_PREFIX = b"Exif\0\0"
ORIENTATION = 0x0112
# EXIF tags with the offset and the length of a thumbnail, as JPEG and as plain pixels.
_THUMBNAILS = ((0x0201, 0x0202), (0x0111, 0x0117))
_XMP_PREFIX, _EXTENDED_XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
# In an XMP packet: pictures, in an element or an attribute; and references to a second part of the packet, a video or a
# gain map that no longer exists.
_XMP_PICTURES = (
    re.compile(rb"(<(xmpGImg:image|GImage:Data)\b[^>]*>)[^<]*"),
    re.compile(rb"((xmpGImg:image|GImage:Data)=)(\"[^\"]*\"|'[^']*')"),
)
_XMP_UNTRUE = re.compile(
    rb"\s(xmpNote:HasExtendedXMP|G?Camera:(MotionPhoto|MicroVideo)\w*|hdrgm:\w+)=(\"[^\"]*\"|'[^']*')"
)
# Photoshop resources 1033 and 1036 without a name, followed by their length.
_PHOTOSHOP_THUMBNAIL = re.compile(rb"8BIM\x04[\x09\x0c]\0\0(.{4})", re.DOTALL)
# APP1 to APP15 and COM, without APP11 (JUMBF: content credentials, which sign the picture as it was) and APP14 (Adobe:
# how the colours of that particular file are coded).
_JPEG_KEPT = frozenset({*range(0xE1, 0xEB), 0xEC, 0xED, 0xEF, 0xFE})
# How segments begin that refer to pictures behind the first one: multi-picture index, gain map (ISO 21496).
_JPEG_OF_OTHERS = (b"MPF\0", b"urn:iso:std:iso:ts:21496", _EXTENDED_XMP_PREFIX)
_JPEG_START_OF_SCAN, _JPEG_JFIF, _JPEG_CREDENTIALS = 0xDA, 0xE0, b"\xeb"
_PNG_SIGNATURE_BYTES = 8
_PNG_TEXT = frozenset({b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
# PNG chunks that are valid for any colour type. Of unknown chunks those are kept whose name marks them as safe to copy:
# a lower-case fourth letter (PNG specification, section 5.4).
_PNG_KEPT = frozenset({b"cICP", b"cHRM", b"gAMA", b"iCCP", b"mDCV", b"cLLI", b"sRGB", b"eXIf"})


def clean_exif(exif: bytes, orientation: int | None = None) -> bytes:
    """An EXIF block without its thumbnail, and with another orientation if one is given. The block may have its prefix.

    All other bytes stay where they are. A damaged block is returned as it is.
    """
    start = len(_EXIF_PREFIX) if exif.startswith(_EXIF_PREFIX) else 0
    block = bytearray(exif[start:])
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(block[:2])]
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        if orientation is not None:
            for tag, at in _entries(block, order, first):
                if tag == ORIENTATION:
                    struct.pack_into(f"{order}H", block, at + 8, orientation)
        link = first + 2 + 12 * struct.unpack_from(f"{order}H", block, first)[0]
        (second,) = struct.unpack_from(f"{order}I", block, link)
        if second:
            values = {
                tag: struct.unpack_from(f"{order}I", block, at + 8)[0] for tag, at in _entries(block, order, second)
            }
            for offset_tag, length_tag in _THUMBNAILS:
                offset, length = values.get(offset_tag, 0), values.get(length_tag, 0)
                length = max(0, min(length, len(block) - offset))
                block[offset : offset + length] = bytes(length)
            struct.pack_into(f"{order}I", block, link, 0)
    except (struct.error, KeyError):
        return exif
    return exif[:start] + bytes(block)


def clean_photoshop(block: bytes) -> bytes:
    """Photoshop's image resources (JPEG segment APP13, TIFF tag 34377) with the thumbnail zeroed."""
    cleaned = bytearray(block)
    for thumbnail in _PHOTOSHOP_THUMBNAIL.finditer(block):
        (length,) = struct.unpack(">I", thumbnail.group(1))
        start, end = thumbnail.end(), min(thumbnail.end() + length, len(block))
        cleaned[start:end] = bytes(end - start)
    return bytes(cleaned)


def upright_xmp(xmp: bytes) -> bytes:
    """An XMP packet that says that the picture is upright."""
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)


def clean_xmp(xmp: bytes) -> bytes:
    """An XMP packet without its pictures, and without references to parts of the file that are not kept."""
    for pattern in _XMP_PICTURES:
        xmp = pattern.sub(lambda match: match.group(1) + b'""' * match.group(1).endswith(b"="), xmp)
    return _XMP_UNTRUE.sub(b"", xmp)


def bytes_behind_jpeg(data: bytes) -> int:
    """Number of bytes behind the picture of a JPEG file: a second picture, a gain map, a video."""
    at = 2
    for segment in _jpeg_parts(data):
        at += len(segment)
    end = data.find(b"\xff\xd9", at)  # within the coded picture markers are escaped
    return len(data[end + 2 :].rstrip(b"\0")) if end >= 0 else 0


def left_out_of_jpeg(data: bytes) -> tuple[str, ...]:
    """For people: the metadata of a JPEG file that are left out on purpose. Thumbnails are not named."""
    found = []
    for segment in _jpeg_parts(data):
        if segment[1:2] == _JPEG_CREDENTIALS:
            found.append("content credentials, which sign the picture as it was")
        if segment[4:].startswith(_EXTENDED_XMP_PREFIX):
            found.append("the second part of XMP")
    return tuple(dict.fromkeys(found))


def left_out_of_png(data: bytes, kept: tuple[bytes, ...]) -> tuple[str, ...]:
    """For people: the chunks of a PNG file that are not among those that are kept (`png_chunks`), by name. Transparency
    is among the pixels."""
    names = {name for name, _ in _png_chunks_of(data) if name[0] & 0x20 and name.isalpha()}
    shown = sorted(name.decode() for name in names - {chunk[4:8] for chunk in kept} - {b"tRNS"})
    return (f"PNG chunks {', '.join(shown)}",) if shown else ()


def _png_chunks_of(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Name and bytes of each chunk of a PNG file before its end; those of the last may be cut off."""
    at = _PNG_SIGNATURE_BYTES
    while at + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IEND":
            return
        yield name, memoryview(data)[at : at + 12 + length]
        at += 12 + length


def jpeg_segments(data: bytes) -> tuple[bytes, ...]:
    """The segments of a JPEG file that are kept, in their order: JFIF, EXIF, XMP, colour profile, IPTC, comments.

    Empty for a file with another structure.
    """
    segments: list[bytes] = []
    for segment in _jpeg_parts(data):
        marker, body = segment[1] if len(segment) > 1 else 0, segment[4:]
        if marker == _JPEG_JFIF and body.startswith(b"JFIF\0"):
            segments.append(_jpeg_segment(marker, body[:12] + b"\0\0"))  # no thumbnail
        elif body.startswith(_EXIF_PREFIX):
            segments.append(_jpeg_segment(marker, clean_exif(body)))
        elif body.startswith(_XMP_PREFIX):
            segments.append(_jpeg_segment(marker, clean_xmp(body)))
        elif body.startswith(b"Photoshop 3.0\0"):
            segments.append(_jpeg_segment(marker, clean_photoshop(body)))
        elif marker in _JPEG_KEPT and not body.startswith(_JPEG_OF_OTHERS):
            segments.append(segment)
    return tuple(segments)


def _jpeg_parts(data: bytes) -> Iterator[bytes]:
    """The segments of a JPEG file from the first marker to the start of the coded picture. A fill byte is one of its
    own."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _JPEG_START_OF_SCAN:
        length = 1 if data[at + 1] == 0xFF else 2 + struct.unpack_from(">H", data, at + 2)[0]
        yield data[at : at + length].ljust(4, b"\0") if length > 1 else b"\xff"
        at += length


def with_jpeg_segments(data: bytes, segments: tuple[bytes, ...]) -> bytes:
    """A JPEG file that Pillow wrote, with these segments instead of its own JFIF segment."""
    at = 2
    if segments and segments[0][1] == _JPEG_JFIF and data[3] == _JPEG_JFIF:
        at += 2 + struct.unpack_from(">H", data, 4)[0]
    elif data[3] == _JPEG_JFIF:  # the original had none: Pillow's stays, and comes first
        end = 4 + struct.unpack_from(">H", data, 4)[0]
        return data[:end] + b"".join(segments) + data[end:]
    return data[:2] + b"".join(segments) + data[at:]


def png_chunks(data: bytes) -> tuple[bytes, ...]:
    """The chunks of a PNG file that are kept, in their order: colour, resolution, text, EXIF. Damaged ones are not
    kept; readers skip them, but for names that are no letters, for which they refuse a file."""
    chunks: list[bytes] = []
    for name, view in _png_chunks_of(data):
        if not name[0] & 0x20:  # the picture's own
            continue
        chunk = bytes(view)
        (length,), (checksum,) = struct.unpack_from(">I", chunk), struct.unpack_from(">I", chunk[-4:])
        is_complete = len(chunk) == 12 + length and checksum == zlib.crc32(chunk[4:-4]) and name.isalpha()
        if name == b"eXIf":
            chunk = _png_chunk(name, clean_exif(chunk[8:-4]))
        elif name == b"iTXt" and chunk[8:].startswith(b"XML:com.adobe.xmp\0\0"):  # not compressed
            chunk = _png_chunk(name, clean_xmp(chunk[8:-4]))
        is_safe_to_copy = name[3] & 0x20
        if is_complete and (is_safe_to_copy or name in _PNG_KEPT):
            chunks.append(chunk)
    return tuple(chunks)


def png_without_pixels(data: bytes) -> bytes:
    """The same PNG file with no pixels, and with the EXIF and text that follow them before their place: what they say
    is known once the file is open."""
    kept: list[bytes | memoryview] = [data[:_PNG_SIGNATURE_BYTES]]
    had_pixels = False
    for name, chunk in _png_chunks_of(data):
        if name == b"IDAT":
            had_pixels = True
        elif not had_pixels:
            kept.append(chunk)
        elif name in _PNG_TEXT:
            kept.append(_png_chunk(name, bytes(chunk[8:-4])))  # nobody looks at its checksum there
    return b"".join((*kept, _png_chunk(b"IDAT", b""), _png_chunk(b"IEND", b"")))


def with_png_chunks(data: bytes, chunks: tuple[bytes, ...]) -> bytes:
    """A PNG file that Pillow wrote, with these chunks behind its header."""
    end = _PNG_SIGNATURE_BYTES + 12 + struct.unpack_from(">I", data, _PNG_SIGNATURE_BYTES)[0]
    return data[:end] + b"".join(chunks) + data[end:]


def _entries(block: bytearray, order: str, directory: int) -> list[tuple[int, int]]:
    """Tag and offset of each entry of a TIFF directory."""
    (count,) = struct.unpack_from(f"{order}H", block, directory)
    places = [directory + 2 + 12 * number for number in range(count)]
    return [(struct.unpack_from(f"{order}H", block, at)[0], at) for at in places]


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
