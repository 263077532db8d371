"""Orientation: whatever the metadata tell, the result is shown as the photograph is."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from cisi_runtime.pictures.orientation import told_orientation
from cisi_runtime.pictures.reading import decode_picture, read_head
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


def behind_the_pixels(png: bytes) -> bytes:
    """The same file, with what it tells at its end."""
    before, told, pixels = png[:8], b"", b""
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        chunk = png[at : at + 12 + length]
        if chunk[4:8] in (b"eXIf", b"iTXt"):
            told += chunk
        elif chunk[4:8] != b"IEND":
            pixels += chunk
        at += len(chunk)
    assert told
    return before + pixels + told + chunk


@pytest.mark.parametrize("place", ["before the pixels", "behind the pixels"])
@pytest.mark.parametrize("by", ["exif", "xmp"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_head_of_a_png_is_read_without_its_pixels(
    orientation: int, by: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = photograph("PNG", orientation)
    if by == "xmp":
        text = PngImagePlugin.PngInfo()
        text.add_itxt("XML:com.adobe.xmp", (XMP % orientation).decode())
        target = io.BytesIO()
        Image.new("RGB", SIZE).save(target, "PNG", pnginfo=text)
        data = target.getvalue()
    if place == "behind the pixels":
        data = behind_the_pixels(data)
    height, width = decode_picture(data, "a").rgb.shape[:2]

    def load(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    head = read_head(data, "a")
    assert (head.height, head.width) == (height, width) == ((48, 32) if orientation == 6 else (32, 48))


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
