import errno
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, TiffImagePlugin, TiffTags

from cisi_runtime.errors import OutputError, PictureError
from cisi_runtime.pictures.picture import Picture, pixels_of
from cisi_runtime.pictures.reading import (
    check_picture,
    decode_picture,
    find_pictures,
    left_out_masks,
    read_mask,
    read_picture,
)
from cisi_runtime.pictures.resizing import crop_centre, read_square, resize_short_side, within_ratio
from cisi_runtime.pictures.writing import write_picture

Pixels = npt.NDArray[np.uint8]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".tiff", ".bmp"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, picture: Pixels, suffix: str) -> None:
    write_picture(tmp_path / f"p{suffix}", Picture(picture))
    again = read_picture(tmp_path / f"p{suffix}")
    assert np.array_equal(again.rgb, picture)
    assert again.alpha is None


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_alpha_is_kept_with_the_colours_under_it(tmp_path: Path, picture: Pixels, suffix: str) -> None:
    alpha = picture[..., 0].copy()
    alpha[:20] = 0
    write_picture(tmp_path / f"p{suffix}", Picture(picture, alpha))
    again = read_picture(tmp_path / f"p{suffix}")
    assert again.alpha is not None
    assert np.array_equal(again.alpha, alpha)
    assert np.array_equal(again.rgb, picture)


def test_a_profile_is_kept_where_it_fits_the_pixels(tmp_path: Path, picture: Pixels) -> None:
    for space, expected in ((b"RGB ", b"16 bytes before RGB more"), (b"GRAY", None)):
        write_picture(tmp_path / "p.png", Picture(picture, icc_profile=b"16 bytes before " + space + b"more"))
        assert read_picture(tmp_path / "p.png").icc_profile == expected


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    stored = np.zeros((40, 60, 3), dtype=np.uint8)
    stored[:20, :30] = 255  # the stored top left quarter is white
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "p.png", exif=exif)
    upright = read_picture(tmp_path / "p.png")
    assert upright.size == ((40, 60) if orientation <= 4 else (60, 40))
    # Where the stored top left corner is seen, by the EXIF standard's table of orientations.
    seen = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    corners = {"tl": (0, 0), "tr": (0, -1), "bl": (-1, 0), "br": (-1, -1)}
    assert {name for name, place in corners.items() if upright.rgb[place].all()} == {seen}


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palette_become_rgb(tmp_path: Path, picture: Pixels, mode: str) -> None:
    image = Image.fromarray(picture).convert(mode)
    image.save(tmp_path / "p.png")
    assert np.array_equal(read_picture(tmp_path / "p.png").rgb, np.asarray(image.convert("RGB")))


def sixteen_bit_rgb_png(path: Path) -> None:
    import cv2

    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 2**16, (30, 40, 3), dtype=np.uint16))


def test_sixteen_bit_colour_is_refused_and_never_reduced(tmp_path: Path) -> None:
    for name in ("deep.png", "deep.tif"):
        sixteen_bit_rgb_png(tmp_path / name)
        for read in (read_picture, check_picture):
            with pytest.raises(PictureError, match=f"{name}: .* is not supported, expected 8-bit RGB or grey"):
                read(tmp_path / name)
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode == "RGB"  # why the header is read: Pillow gives it as 8-bit


@pytest.mark.parametrize(("mode", "suffix"), [("I;16", ".png"), ("CMYK", ".jpg"), ("F", ".tif")])
def test_other_modes_are_refused(tmp_path: Path, mode: str, suffix: str) -> None:
    Image.new(mode, (30, 40)).save(tmp_path / f"p{suffix}")
    with pytest.raises(PictureError, match="not supported, expected 8-bit RGB or grey"):
        read_picture(tmp_path / f"p{suffix}")


def test_animations_are_refused(tmp_path: Path, picture: Pixels) -> None:
    frames = [Image.fromarray(picture), Image.fromarray(255 - picture)]
    frames[0].save(tmp_path / "p.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="several frames"):
        read_picture(tmp_path / "p.webp")


def test_damaged_files_are_refused(tmp_path: Path, picture: Pixels) -> None:
    write_picture(tmp_path / "whole.png", Picture(picture))
    write_picture(tmp_path / "whole.jpg", Picture(picture))
    contents = {
        "cut.png": (tmp_path / "whole.png").read_bytes()[:2000],
        "cut.jpg": (tmp_path / "whole.jpg").read_bytes()[:2000],
        "stub.png": (tmp_path / "whole.png").read_bytes()[:20],
        "empty.jpg": b"",
        "text.jpg": b"not a picture at all",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        for read in (read_picture, check_picture):
            with pytest.raises(PictureError, match=name):
                read(tmp_path / name)
    with pytest.raises(PictureError, match="no such file"):
        read_picture(tmp_path / "missing.png")


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_masks_of_every_mode(tmp_path: Path, mode: str) -> None:
    grey = np.full((20, 30), 127, dtype=np.uint8)
    grey[5:9, 7:12] = 128
    if mode == "1":
        grey = np.where(grey >= 128, np.uint8(255), np.uint8(0))
    Image.fromarray(grey).convert(mode).save(tmp_path / "m.png")
    hole = read_mask(tmp_path / "m.png", (20, 30))
    assert hole.dtype == np.bool_
    assert np.array_equal(hole, grey >= 128)


def test_bad_masks_are_refused(tmp_path: Path, picture: Pixels) -> None:
    write_picture(tmp_path / "m.png", Picture(picture))
    with pytest.raises(PictureError, match="channels differ, expected a black and white mask"):
        read_mask(tmp_path / "m.png", picture.shape[:2])
    for mode in ("LA", "RGBA"):
        for level in (0, 255):
            drawn = Image.new("L", (90, 70), level).convert(mode)
            drawn.putalpha(Image.fromarray(picture[..., 0]))
            drawn.save(tmp_path / "m.png")
            with pytest.raises(PictureError, match="is of one colour, and drawn in alpha"):
                read_mask(tmp_path / "m.png", picture.shape[:2])
    Image.new("L", (10, 20)).save(tmp_path / "m.png")
    with pytest.raises(PictureError, match="mask is 10x20 pixels, expected 90x70"):
        read_mask(tmp_path / "m.png", picture.shape[:2])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_level_of_a_grey_file_of_few_bits(bits: int) -> None:
    """By hand: Pillow writes no such file. Two rows of eight pixels, the highest level and level 0."""
    highest = 2**bits - 1
    rows = b"\0" + b"\xff" * bits + b"\0" + bytes(bits)

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    for transparent, alpha in ((highest, [0, 255]), (0, [255, 0])):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0))
        level = chunk(b"tRNS", struct.pack(">H", transparent))
        data = b"\x89PNG\r\n\x1a\n" + head + level + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        picture = decode_picture(data, "it")
        assert picture.alpha is not None
        assert picture.alpha.tolist() == [[value] * 8 for value in alpha]
        assert picture.rgb[..., 0].tolist() == [[255] * 8, [0] * 8]


def test_what_a_photograph_says_of_itself_is_looked_at_too(tmp_path: Path) -> None:
    """A run would end hours later where the file is read as a whole."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[305] = TiffTags.RATIONAL  # Software, which is text
    tags[305] = TiffImagePlugin.IFDRational(1, 2)
    Image.new("RGB", (20, 10)).save(tmp_path / "p.tif", tiffinfo=tags)
    for read in (read_picture, check_picture):
        with pytest.raises(PictureError, match=r"p.tif: cannot be read"):
            read(tmp_path / "p.tif")


def test_a_long_thin_picture_is_not_enlarged_whole(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for shape in ((2, 6000, 3), (6000, 2, 3)):
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        assert sorted(within_ratio(pixels).shape) == [2, 3, 32]
        assert np.array_equal(within_ratio(pixels, 0.0), pixels[:32, :32])
        assert np.array_equal(within_ratio(pixels, 1.0), pixels[-32:, -32:])
        write_picture(tmp_path / "p.png", Picture(pixels))
        assert read_square(tmp_path / "p.png", 64).shape == (64, 64, 3)
    assert within_ratio(pixels[:32]).shape == (32, 2, 3)


def half_written(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data[: len(data) // 2])
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_nothing_half_written(tmp_path: Path, picture: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    write_picture(tmp_path / "p.png", Picture(picture))
    before = (tmp_path / "p.png").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(OutputError, match=r"p.png: cannot be written: No space left on device"):
        write_picture(tmp_path / "p.png", Picture(picture))
    assert (tmp_path / "p.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["p.png"]


def test_a_size_that_the_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"p.webp: cannot be written in this format"):
        write_picture(tmp_path / "p.webp", Picture(np.zeros((2, 17_000, 3), dtype=np.uint8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [("p.gif", "unknown picture format '.gif'"), ("none/p.png", "does not exist"), ("p", "unknown picture format")],
)
def test_names_that_cannot_be_written(tmp_path: Path, picture: Pixels, name: str, message: str) -> None:
    with pytest.raises(OutputError, match=message):
        write_picture(tmp_path / name, Picture(picture))


def test_alpha_is_never_dropped_in_silence(tmp_path: Path, picture: Pixels) -> None:
    with pytest.raises(OutputError, match="cannot hold the picture's alpha channel"):
        write_picture(tmp_path / "p.jpg", Picture(picture, picture[..., 0]))


def test_resize_and_crop() -> None:
    tall = np.zeros((400, 100, 3), dtype=np.uint8)
    assert resize_short_side(tall, 50).shape == (200, 50, 3)
    assert resize_short_side(tall, 100) is tall
    marked = np.zeros((10, 13, 3), dtype=np.uint8)
    marked[3:7, 4:8] = 1
    assert crop_centre(marked, 4).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("height", [1, 63, 64, 65, 200])
def test_pixels_come_strip_by_strip_as_they_are(mode: str, height: int) -> None:
    shape = (height, 37) if mode == "L" else (height, 37, len(mode))
    pixels = np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(pixels)
    assert image.mode == mode
    assert np.array_equal(pixels_of(image), pixels)


def test_masks_beside_their_photographs_are_not_photographs(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.mask.png", "b.png", "alone.mask.png", "below/c.jpg", "below/c.mask.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    names = [path.relative_to(tmp_path).as_posix() for path in find_pictures(tmp_path)]
    assert names == ["a.jpg", "alone.mask.png", "b.png", "below/c.jpg"]
    assert left_out_masks(tmp_path) == f"{tmp_path}: masks beside their photographs are left out, 2"
    assert left_out_masks(tmp_path / "below") == f"{tmp_path / 'below'}: masks beside their photographs are left out, 1"
    (tmp_path / "below" / "c.jpg").unlink()
    assert left_out_masks(tmp_path / "below") is None
