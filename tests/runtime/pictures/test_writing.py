"""What a photograph keeps on its way through: pixels, metadata, profile, resolution, orientation, coding."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, UnidentifiedImageError

from cisi_runtime.errors import OutputError, PictureError
from cisi_runtime.pictures.metadata import clean_exif, clean_xmp, jpeg_segments, png_chunks
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.reading import decode_picture, read_picture
from cisi_runtime.pictures.writing import dropped_metadata, encode_picture, largest_change, write_picture
from tests.support.networks import PHOTOS

Pixels = npt.NDArray[np.uint8]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:rights="mine"/></x:xmpmeta>'
XMP_UPRIGHT = XMP.replace(b'"6"', b'"1"')
THUMBNAIL = b"\xff\xd8 what was there before \xff\xd9"
MAKER, ARTIST, ORIENTATION = 0x010F, 0x013B, 0x0112


def exif_with_thumbnail(orientation: int = 1) -> bytes:
    """An EXIF block by hand: maker, orientation, a maker's note that counts from the block's start, a thumbnail."""
    entries, second = 3, 8 + 2 + 12 * 3 + 4
    note = second + 2 + 12 * 2 + 4
    first = struct.pack("<H", entries)
    first += struct.pack("<HHI4s", MAKER, 2, 4, b"Cis\0")
    first += struct.pack("<HHIHH", ORIENTATION, 3, 1, orientation, 0)
    first += struct.pack("<HHII", 0x927C, 7, 8, note) + struct.pack("<I", second)
    directory = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, note + 8, 0x0202, 4, 1, len(THUMBNAIL), 0)
    return b"II*\0" + struct.pack("<I", 8) + first + directory + struct.pack("<II", note, 77) + THUMBNAIL


def encoded(image: Image.Image, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, **options)  # type: ignore[arg-type]
    return target.getvalue()


def again(data: bytes, file_format: str | None = None) -> bytes:
    """A file read and written, as cisi-run does it."""
    picture = decode_picture(data, "it")
    assert picture.origin is not None
    return encode_picture(picture, file_format or picture.origin.format, "it")


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_jpeg_is_coded_as_it_was(picture: Pixels) -> None:
    tables = [[3 + i % 7 for i in range(64)], [5 + i % 11 for i in range(64)]]
    for subsampling, progressive in ((0, False), (1, True), (2, False)):
        data = encoded(
            Image.fromarray(picture), format="JPEG", qtables=tables, subsampling=subsampling, progressive=progressive
        )
        before, after = opened(data), opened(again(data))
        assert after.quantization == before.quantization == dict(enumerate(tables))  # type: ignore[attr-defined]
        assert after.layer == before.layer  # type: ignore[attr-defined]
        assert after.info.get("progressive", 0) == before.info.get("progressive", 0) == int(progressive)


def test_the_largest_change_of_a_known_pixel() -> None:
    data = (PHOTOS / "balloon.jpg").read_bytes()
    photo = decode_picture(data, "it")
    hole = np.zeros(photo.size, dtype=bool)
    hole[40:60, 40:60] = True
    file = encode_picture(photo, "JPEG", "it")
    after = decode_picture(file, "it").rgb
    by_hand = int(np.abs(after.astype(int) - photo.rgb)[~hole].max())
    assert largest_change(photo, file, "JPEG", hole) == by_hand
    assert 0 < by_hand <= 40
    assert largest_change(photo, file, "JPEG", np.ones_like(hole)) == 0
    lossless = encode_picture(photo, "PNG", "it")
    assert largest_change(photo, lossless, "PNG", hole) == 0
    assert np.array_equal(decode_picture(lossless, "it").rgb, photo.rgb)
    # The pixels of a block that did not change are hardly another's: the tables are the same.
    fresh = encode_picture(Picture(photo.rgb), "JPEG", "it")
    assert (
        np.abs(after.astype(int) - photo.rgb).mean()
        < np.abs(decode_picture(fresh, "it").rgb.astype(int) - photo.rgb).mean()
    )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_jpeg_keeps_every_segment_and_no_thumbnail(picture: Pixels) -> None:
    iptc = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", 8) + b"headline"
    shown = b"8BIM\x04\x0c\0\0" + struct.pack(">I", len(THUMBNAIL)) + THUMBNAIL
    parts = {
        0xE1: b"Exif\0\0" + exif_with_thumbnail(6),
        0xE2: b"MPF\0an index of pictures that are not there",
        0xED: iptc + shown,
        0xEE: b"Adobe\0\x64\0\0\0\0\x01",
        0xFE: b"a comment",
    }
    plain = encoded(
        Image.fromarray(picture), format="JPEG", quality=98, subsampling=0, icc_profile=SRGB, xmp=XMP, dpi=(118, 300)
    )
    extra = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in parts.items())
    end = 4 + struct.unpack_from(">H", plain, 4)[0]
    data = plain[:end] + extra + plain[end:]
    photo = decode_picture(data, "it")
    assert photo.size == picture.shape[1::-1]  # orientation 6
    result = again(data)
    after = opened(result)
    assert after.size == picture.shape[1::-1]  # stored as it was
    assert after.getexif()[ORIENTATION] == 6
    assert after.getexif()[MAKER] == "Cis"
    assert (after.info["icc_profile"], after.info["xmp"], after.info["dpi"]) == (SRGB, XMP, (118, 300))
    assert after.info["comment"] == b"a comment"
    assert iptc in result
    assert struct.pack("<II", 88, 77)[4:] in result
    for gone in (THUMBNAIL, b"MPF\0"):
        assert gone in data
        assert gone not in result
    assert jpeg_segments(result) == jpeg_segments(data)
    assert np.abs(decode_picture(result, "it").rgb.astype(int) - photo.rgb).max() <= 8


def test_clean_exif_moves_nothing() -> None:
    block = exif_with_thumbnail(6)
    cleaned = clean_exif(block, orientation=1)
    assert len(cleaned) == len(block)
    assert THUMBNAIL not in cleaned
    tags = Image.Exif()
    tags.load(cleaned)
    assert (tags[ORIENTATION], tags[MAKER]) == (1, "Cis")
    assert block.index(struct.pack("<I", 77)) == cleaned.index(struct.pack("<I", 77))
    assert clean_exif(cleaned) == cleaned
    assert clean_exif(b"Exif\0\0" + block) == b"Exif\0\0" + clean_exif(block)
    for end in range(len(block)):  # a damaged block is nobody's crash
        clean_exif(block[:end], orientation=3)


def test_png_keeps_every_chunk(picture: Pixels) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a title")
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    text.add(b"gAMA", struct.pack(">I", 45455))
    text.add(b"prVt", b"private, safe to copy")
    text.add(b"prVT", b"private, not safe to copy")
    text.add(b"tIME", bytes([7, 234, 11, 22, 10, 0, 0]))  # when it was last changed: now
    text.add(b"bKGD", bytes(6))  # of no use for another colour type
    image = Image.fromarray(picture)
    exif = exif_with_thumbnail(8)
    data = encoded(image, format="PNG", pnginfo=text, icc_profile=SRGB, dpi=(118, 300), exif=exif)
    result = again(data)
    after = opened(result)
    assert after.info["icc_profile"] == SRGB
    assert after.info["dpi"] == opened(data).info["dpi"]
    assert after.info["gamma"] == pytest.approx(0.45455)
    names = [chunk[4:8] for chunk in png_chunks(result)]
    assert sorted(names) == sorted([b"iCCP", b"gAMA", b"prVt", b"tEXt", b"iTXt", b"pHYs", b"eXIf"])
    assert png_chunks(result) == png_chunks(data)
    assert after.getexif()[ORIENTATION] == 8
    assert THUMBNAIL not in result
    assert np.array_equal(np.asarray(after), picture)  # stored as it was
    at = 8
    while at < len(result):  # every chunk is whole
        length, name = struct.unpack_from(">I4s", result, at)
        assert struct.unpack_from(">I", result, at + 8 + length)[0] == zlib.crc32(
            name + result[at + 8 : at + 8 + length]
        )
        at += 12 + length


def test_a_png_chunk_whose_name_is_no_name_is_left_out(picture: Pixels) -> None:
    """Behind the pixels readers pass over it; in front of them, where chunks are written, they refuse the file."""
    data = encoded(Image.fromarray(picture), format="PNG", dpi=(118, 118))
    name, body = b"\xa1\xee\xa6\xe9", b"damaged"
    chunk = struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    result = again(data[:-12] + chunk + data[-12:])
    assert np.array_equal(np.asarray(opened(result)), picture)
    assert name not in result
    assert png_chunks(result) == png_chunks(data)


@pytest.mark.parametrize("file_format", ["WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_other_formats_keep_their_metadata(picture: Pixels, file_format: str, orientation: int) -> None:
    tags, xmp = Image.Exif(), XMP if orientation == 6 else XMP_UPRIGHT
    tags[ORIENTATION], tags[MAKER], tags[ARTIST] = orientation, "Cis", "somebody"
    tags.get_ifd(0x8769)[0x829A] = 0.01  # ExposureTime
    if file_format == "TIFF":
        tags[700] = xmp
    options = {"exif": tags.tobytes(), "xmp": xmp, "icc_profile": SRGB, "dpi": (118, 118)}
    data = encoded(Image.fromarray(picture), format=file_format, **options)
    before, after = decode_picture(data, "it"), decode_picture(result := again(data), "it")
    assert before.size == (picture.shape[:2] if orientation == 1 else picture.shape[1::-1])
    assert after.size == before.size
    if file_format != "AVIF":
        assert np.array_equal(after.rgb, before.rgb)
    found = opened(result).getexif()
    assert (found[MAKER], found[ARTIST]) == ("Cis", "somebody")
    assert float(found.get_ifd(0x8769)[0x829A]) == pytest.approx(0.01)
    assert after.icc_profile == SRGB
    if file_format == "TIFF":  # written upright, which Pillow's reader may have put into the XMP packet already
        assert b'dc:rights="mine"' in opened(result).info["xmp"]
        assert b'Orientation="6"' not in opened(result).info["xmp"]
    else:
        assert opened(result).info["xmp"] == xmp
    if file_format == "TIFF":
        assert opened(result).info["dpi"] == (118, 118)


@pytest.mark.parametrize("target", ["PNG", "WEBP", "TIFF", "AVIF", "BMP"])
def test_another_format_gets_it_upright(picture: Pixels, target: str) -> None:
    data = encoded(
        Image.fromarray(picture),
        format="JPEG",
        exif=b"Exif\0\0" + exif_with_thumbnail(6),
        icc_profile=SRGB,
        xmp=XMP,
        dpi=(118, 118),
    )
    photo, result = decode_picture(data, "it"), again(data, target)
    after = opened(result)
    assert THUMBNAIL not in result
    assert np.asarray(after.convert("RGB")).shape == photo.rgb.shape
    if target != "AVIF":
        assert np.array_equal(np.asarray(after.convert("RGB")), photo.rgb)
    assert np.array_equal(decode_picture(result, "it").rgb, np.asarray(after.convert("RGB")))  # not turned twice
    if target != "BMP":
        assert after.getexif()[MAKER] == "Cis"
        assert after.info["icc_profile"] == SRGB
        assert (after.info.get("xmp") or after.info["XML:com.adobe.xmp"].encode()) == XMP_UPRIGHT
    if target in ("PNG", "TIFF", "BMP"):
        assert after.info["dpi"] == pytest.approx((118, 118), abs=0.02)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif", ".bmp"])
@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_stays_grey(tmp_path: Path, picture: Pixels, suffix: str, mode: str) -> None:
    if mode == "LA" and suffix in (".jpg", ".bmp"):
        return  # no alpha there: test_alpha_is_never_dropped_in_silence
    source = Image.fromarray(picture[..., 0])
    if mode == "LA":
        source.putalpha(Image.fromarray(picture[..., 1]))
    source = source.convert(mode) if mode == "1" else source
    source.save(tmp_path / "p.png")
    photo = read_picture(tmp_path / "p.png")
    assert photo.grey
    write_picture(tmp_path / f"q{suffix}", photo)
    with Image.open(tmp_path / f"q{suffix}") as after:
        colour = suffix == ".webp" or (suffix, mode) == (".avif", "LA")  # have no grey
        expected = ("RGB", "RGBA") if colour else ("L", "LA")
        assert after.mode == expected[mode == "LA"]
        if suffix not in (".jpg", ".avif"):
            assert np.array_equal(np.asarray(after.convert("RGB")), photo.rgb)


def test_each_component_of_a_jpeg_keeps_its_table(picture: Pixels) -> None:
    tables = [[3] * 64, [7] * 64, [11] * 64]
    data = encoded(Image.fromarray(picture), format="JPEG", qtables=tables)
    assert [opened(data).layer[i][3] for i in range(3)] == [0, 1, 2]  # type: ignore[attr-defined]
    after = opened(again(data))
    assert [after.quantization[after.layer[i][3]] for i in range(3)] == tables  # type: ignore[attr-defined]
    rgb = encoded(Image.fromarray(picture), format="JPEG", keep_rgb=True)
    assert opened(again(rgb)).info["adobe_transform"] == 0


def test_a_dense_progressive_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile, "MAXBLOCK", 10_000_000)
        options = {"subsampling": 0, "qtables": [[1] * 64], "progressive": True}
        data = encoded(Image.fromarray(noise), format="JPEG", **options)
    assert len(data) > 2 * 400 * 600
    assert opened(again(data)).size == (600, 400)


def test_what_is_not_kept_is_said(picture: Pixels) -> None:
    image = Image.fromarray(picture)
    plain = encoded(
        image, format="JPEG", comment=b"a comment", icc_profile=SRGB, exif=b"Exif\0\0" + exif_with_thumbnail()
    )
    photo = decode_picture(plain + b"a video", "it")
    assert dropped_metadata(photo, "JPEG") == ["7 bytes behind the picture (a second picture, a gain map or a video)"]
    assert dropped_metadata(photo, "PNG")[1:] == ["comment"]
    assert dropped_metadata(photo, "BMP")[1:] == ["comment", "EXIF", "colour profile"]
    assert dropped_metadata(decode_picture(plain, "it"), "JPEG") == []
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a title")
    assert dropped_metadata(decode_picture(encoded(image, format="PNG", pnginfo=text), "it"), "TIFF") == ["text"]
    assert dropped_metadata(Picture(picture), "JPEG") == []


def test_metadata_that_are_left_out_on_purpose_are_said(picture: Pixels) -> None:
    image = Image.fromarray(picture)
    plain = encoded(image, format="JPEG")
    credentials = b"\xff\xeb\0\x06JP\0\0"
    extended = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40
    second_part = b"\xff\xe1" + (len(extended) + 2).to_bytes(2, "big") + extended
    signed = decode_picture(plain[:2] + credentials + second_part + second_part + plain[2:], "it")
    said = ["content credentials, which sign the picture as it was", "the second part of XMP"]
    assert dropped_metadata(signed, "JPEG") == said
    assert dropped_metadata(signed, "PNG") == said
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"tIME", b"\x07\xe6\x01\x01\0\0\0")
    chunks.add(b"bKGD", bytes(6))
    chunks.add(b"pHYs", (3000).to_bytes(4, "big") * 2 + b"\1")
    with_chunks = decode_picture(encoded(image, format="PNG", pnginfo=chunks), "it")
    assert dropped_metadata(with_chunks, "PNG") == ["PNG chunks bKGD, tIME"]


def test_pictures_in_metadata_are_not_kept() -> None:
    xmp = (
        b'<rdf:Description tiff:Make="Cis" GCamera:MotionPhoto="1" hdrgm:Version="1.0" xmpNote:HasExtendedXMP="AB12">'
        b"<xmpGImg:image>/9j/4AAQ</xmpGImg:image></rdf:Description><GImage:Data>iVBOR</GImage:Data>"
        b'<rdf:li xmpGImg:image="/9j/4AAQ" xmpGImg:width="2"/>'
    )
    assert clean_xmp(xmp) == (
        b'<rdf:Description tiff:Make="Cis"><xmpGImg:image></xmpGImg:image></rdf:Description><GImage:Data></GImage:Data>'
        b'<rdf:li xmpGImg:image="" xmpGImg:width="2"/>'
    )
    assert clean_xmp(XMP) == XMP


def test_tags_of_tiff_files(picture: Pixels) -> None:
    tags = Image.Exif()
    tags[297], tags[37724], tags[ARTIST] = (0, 1), b"layers of the picture as it was", "somebody"
    for more in ({}, {"big_tiff": True}):
        data = encoded(Image.fromarray(picture), format="TIFF", exif=tags.tobytes(), **more)
        result = again(data)
        found = opened(result).tag_v2  # type: ignore[attr-defined]
        assert found[ARTIST] == "somebody"
        assert not {297, 37724, 282, 283} & set(found)
        assert b"layers of" not in result
        for target in ("JPEG", "PNG", "WEBP", "AVIF"):
            converted = opened(again(data, target))
            assert converted.getexif()[ARTIST] == "somebody"
            assert "dpi" not in converted.info or target == "JPEG"


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_exif_does_not_tell_how_the_pixels_of_a_tiff_file_are_stored(picture: Pixels, mode: str) -> None:
    """Cameras write such tags into the EXIF of JPEG files."""
    for tag, value in ((262, 6), (262, 0), (262, 2), (262, 8), (284, 2), (338, (1,)), (339, (3,)), (256, 5), (317, 2)):
        tags = Image.Exif()
        tags[tag], tags[ARTIST] = value, "somebody"
        data = encoded(Image.fromarray(picture).convert(mode), format="PNG", exif=tags.tobytes())
        result = again(data, "TIFF")
        before, after = decode_picture(data, "before"), decode_picture(result, "after")
        assert np.array_equal(after.rgb, before.rgb)
        assert np.array_equal(after.alpha, before.alpha) if mode == "RGBA" else after.alpha is None
        assert opened(result).tag_v2[ARTIST] == "somebody"  # type: ignore[attr-defined]


def test_a_file_that_nobody_can_read_is_not_written(picture: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = Image.Exif()
    tags[ARTIST] = "somebody"
    photograph = decode_picture(encoded(Image.fromarray(picture), format="PNG", exif=tags.tobytes()), "it")

    def unreadable(_: bytes) -> int:
        raise UnidentifiedImageError("cannot identify image file")

    monkeypatch.setattr("cisi_runtime.pictures.writing.told_orientation", unreadable)
    with pytest.raises(OutputError, match=r"out.tif: .*what was written cannot be read"):
        encode_picture(photograph, "TIFF", "out.tif")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_metadata_is_no_crash(picture: Pixels) -> None:
    image = Image.fromarray(picture)
    for exif in (b"Exif\0\0garbage that is none", b"Exif\0\0" + bytes(40), b"Exif\0\0II*\0\xff\xff\xff\xff"):
        for file_format in ("JPEG", "PNG", "WEBP"):
            data = encoded(image, format=file_format, exif=exif)
            for target in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "BMP"):
                try:
                    assert decode_picture(again(data, target), "it").size == picture.shape[:2]
                except OutputError as error:
                    assert target in ("TIFF", "AVIF"), error  # noqa: PT017


def test_an_avif_of_other_colours_is_refused(tmp_path: Path, picture: Pixels) -> None:
    write_picture(tmp_path / "p.avif", Picture(picture))
    data = bytearray((tmp_path / "p.avif").read_bytes())
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", 12, 16)  # Display P3, PQ
    (tmp_path / "p.avif").write_bytes(data)
    with pytest.raises(PictureError, match=r"its colours \(primaries 12, transfer 16\) are not sRGB's"):
        read_picture(tmp_path / "p.avif")


def test_a_deep_avif_is_refused(tmp_path: Path, picture: Pixels) -> None:
    import cv2

    write_picture(tmp_path / "p.avif", Picture(picture))
    assert read_picture(tmp_path / "p.avif").size == picture.shape[:2]
    deep = picture.astype(np.uint16) * 4
    assert cv2.imwrite(str(tmp_path / "p.avif"), deep, [cv2.IMWRITE_AVIF_DEPTH, 10])
    with Image.open(tmp_path / "p.avif") as image:
        assert image.mode == "RGB"  # why its header is read: Pillow gives it as 8-bit
    with pytest.raises(PictureError, match="more than 8 bits a channel is not supported"):
        read_picture(tmp_path / "p.avif")


def test_the_limit_of_pixels(tmp_path: Path) -> None:
    Image.new("L", (300, 200)).save(tmp_path / "p.png")
    with pytest.raises(PictureError, match=r"p.png: 300x200 is 0.06 megapixels, expected at most 0.05"):
        read_picture(tmp_path / "p.png", max_pixels=50_000)
    assert read_picture(tmp_path / "p.png", max_pixels=60_000).size == (200, 300)
