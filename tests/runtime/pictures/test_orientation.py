"""Orientation: whatever the metadata tell, the result is shown as the photograph is."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cisi_runtime.pictures.reading import decode_picture, told_orientation
from cisi_runtime.pictures.writing import encode_picture, largest_change

SIZE = (48, 32)
XMP = b"""<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF
xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description xmlns:tiff='http://ns.adobe.com/tiff/1.0/'
tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"""


def photograph(file_format: str, orientation: int, *, by: str = "exif") -> bytes:
    """Its pixels differ at each corner, so that no orientation looks like another."""
    pixels = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
    pixels[:16, :24], pixels[16:, 24:], pixels[:16, 24:] = (200, 40, 40), (40, 200, 40), (40, 40, 200)
    options: dict[str, object] = {"quality": 95} if file_format in ("JPEG", "WEBP") else {}
    if file_format == "WEBP":
        options["lossless"] = True
    if by == "exif":
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif[0x010F] = "a camera"
        options["exif"] = exif
    else:
        options["xmp"] = XMP % orientation
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, file_format, **options)
    return target.getvalue()


def assert_shown_alike(data: bytes, file_format: str) -> None:
    """A photograph, read and written again."""
    picture = decode_picture(data, "photograph")
    written = encode_picture(picture, file_format, "result")
    again = decode_picture(written, "result")
    assert again.rgb.shape == picture.rgb.shape
    assert np.abs(again.rgb.astype(int) - picture.rgb).mean() < 4.0
    assert largest_change(picture, written, file_format, np.zeros(picture.rgb.shape[:2], dtype=bool)) < 128


@pytest.mark.parametrize("to", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP"])
@pytest.mark.parametrize("by", ["exif", "xmp"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
def test_orientation_by_exif_or_xmp(orientation: int, by: str, to: str) -> None:
    data = photograph("JPEG", orientation, by=by)
    assert decode_picture(data, "a").rgb.shape == ((48, 32, 3) if orientation > 4 else (32, 48, 3))
    assert_shown_alike(data, to)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_metadata_never_turn_the_result(file_format: str) -> None:
    """Bytes of the EXIF block are changed one at a time, and a few at once."""
    data = photograph(file_format, 6)
    found = re.search(rb"(MM\0\*|II\*\0).*?a camera", data, re.DOTALL)
    assert found is not None
    rng = np.random.default_rng(0)
    turned = 0
    for trial in range(500):
        damaged = bytearray(data)
        for _ in range(1 if trial % 2 else 4):
            damaged[rng.integers(*found.span())] = rng.integers(256)
        if file_format == "PNG":
            _seal(damaged)
        picture = decode_picture(bytes(damaged), "photograph")
        turned += picture.rgb.shape[0] == 48
        for to in (file_format, "PNG", "TIFF"):
            assert_shown_alike(bytes(damaged), to)
    assert 0 < turned < 500


def _seal(png: bytearray) -> None:
    """Give its eXIf chunk a right checksum."""
    start = png.index(b"eXIf")
    (length,) = struct.unpack_from(">I", png, start - 4)
    struct.pack_into(">I", png, start + 4 + length, zlib.crc32(png[start : start + 4 + length]))


def test_what_a_file_tells() -> None:
    assert [told_orientation(photograph("JPEG", n)) for n in range(1, 9)] == list(range(1, 9))
    assert [told_orientation(photograph("TIFF", n)) for n in range(1, 9)] == list(range(1, 9))
    assert told_orientation(photograph("JPEG", 8, by="xmp")) == 8
    assert told_orientation(photograph("JPEG", 99)) == 1
