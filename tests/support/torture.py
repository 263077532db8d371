"""A folder with every kind of picture file that people have, and what must become of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

WIDTH, HEIGHT = 90, 70
ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True)
class Torture:
    """A file below `photos`, and its mask below `masks`.

    name: path below `photos`. write: makes the file.
    error: words of the message, None where it must be inpainted.
    mask: makes the mask, None for the usual one.
    lossless: every known pixel of the result is the photograph's.
    """

    name: str
    write: Callable[[Path], None]
    error: str | None = None
    mask: Callable[[Path], None] | None = None
    lossless: bool = True


def colours(width: int = WIDTH, height: int = HEIGHT) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def saved(mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), **options: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        image = Image.fromarray(colours(*size))
        if mode in ("LA", "RGBA"):
            image.putalpha(image.getchannel(0))
        if mode == "P alpha":
            image = image.convert("P")
            image.info["transparency"] = bytes(range(256))
            image.save(path, transparency=bytes(range(256)))
            return
        image.convert(mode).save(path, **options)  # type: ignore[arg-type]

    return write


def oriented(orientation: int) -> Callable[[Path], None]:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(exif=exif)


def cut(write: Callable[[Path], None], part: float) -> Callable[[Path], None]:
    def write_cut(path: Path) -> None:
        write(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * part)])

    return write_cut


def followed(write: Callable[[Path], None], extra: bytes) -> Callable[[Path], None]:
    def write_more(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes() + extra)

    return write_more


def two_pictures(path: Path) -> None:
    """As phones and stereo cameras write them: a second one behind the first."""
    frames = [Image.fromarray(colours()), Image.fromarray(255 - colours())]
    frames[0].save(path, format="MPO", save_all=True, append_images=frames[1:])


def sampled(factor: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        import cv2

        option = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{factor}")
        assert cv2.imwrite(str(path), colours(), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, option])

    return write


def content(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def deep(path: Path) -> None:
    import cv2

    colour = colours().astype(np.uint16) * 257 + 3
    assert cv2.imwrite(str(path), colour if "colour" in path.name else colour[..., 0])


def animated(path: Path) -> None:
    frames = [Image.fromarray(colours()), Image.fromarray(255 - colours())]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def huge(path: Path) -> None:
    Image.new("1", (12_500, 8_000)).save(path)


def hole(mode: str = "L", size: tuple[int, int] = (WIDTH, HEIGHT), level: int | None = None) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        width, height = size
        mask = np.zeros((height, width), dtype=np.uint8)
        mask[height // 3 : height // 2 + 1, width // 3 : width // 2 + 1] = 255
        if level is not None:
            mask[:] = level
        Image.fromarray(mask).convert(mode).save(path)

    return write


def coloured_mask(path: Path) -> None:
    Image.fromarray(colours()).save(path)


def deep_mask(path: Path) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16)).save(path)


def nothing(path: Path) -> None:
    assert not path.exists()


_DEEP, _DAMAGED = "more than 8 bits a channel is not supported", "cannot be read"
TALL, WIDE = (3, 5000), (5000, 3)

TORTURES = (
    *(
        Torture(f"{name}.{suffix}", saved(), lossless=suffix not in ("jpg", "jpeg", "avif"))
        for name, suffix in (
            ("plain", "jpg"),
            ("plain", "jpeg"),
            ("plain", "png"),
            ("plain", "webp"),
            ("plain", "tif"),
            ("plain", "tiff"),
            ("plain", "avif"),
            ("plain", "bmp"),
            ("PLAIN", "PNG"),
        )
    ),
    *(
        Torture(f"oriented {n}.png", oriented(n), mask=hole(size=(WIDTH, HEIGHT) if n < 5 else (HEIGHT, WIDTH)))
        for n in range(1, 9)
    ),
    *(
        Torture(
            f"oriented {n}.jpg",
            oriented(n),
            mask=hole(size=(WIDTH, HEIGHT) if n < 5 else (HEIGHT, WIDTH)),
            lossless=False,
        )
        for n in range(1, 9)
    ),
    *(Torture(f"mode {mode}.png", saved(mode)) for mode in ("1", "L", "LA", "P", "P alpha", "RGBA")),
    *(Torture(f"mode {mode}.tif", saved(mode)) for mode in ("1", "L", "LA", "P", "RGBA")),
    *(Torture(f"mode {mode}.webp", saved(mode, lossless=True)) for mode in ("L", "RGBA")),
    Torture("mode L.jpg", saved("L"), lossless=False),
    Torture("mode L.avif", saved("L"), lossless=False),
    Torture("two pictures.jpg", two_pictures, lossless=False),
    Torture("not YCbCr.jpg", saved(keep_rgb=True), lossless=False),
    *(Torture(f"sampling {factor}.jpg", sampled(factor), lossless=False) for factor in ("411", "422", "440")),
    Torture("followed.png", followed(saved(), b"bytes that belong to nothing " * 9)),
    Torture("followed.jpg", followed(saved(), b"a video " * 99), lossless=False),
    Torture("big.tif", saved(big_tiff=True, description="a big one")),
    Torture("damaged EXIF.png", saved(exif=b"Exif\0\0neither II nor MM")),
    Torture("damaged EXIF.jpg", saved(exif=b"Exif\0\0neither II nor MM"), lossless=False),
    Torture("progressive.jpg", saved(progressive=True), lossless=False),
    Torture("lossy.webp", saved(quality=50)),
    Torture("lzw.tif", saved(compression="tiff_lzw")),
    Torture("one pixel.png", saved(size=(1, 1)), mask=hole(size=(1, 1))),
    Torture("tall.png", saved(size=TALL), mask=hole(size=TALL)),
    Torture("wide.jpg", saved(size=WIDE), mask=hole(size=WIDE), lossless=False),
    Torture("with spaces and ünïcödé 写真.png", saved()),
    Torture("no hole.png", saved(), mask=hole(level=0)),
    Torture("all hole.png", saved(), mask=hole(level=255)),
    Torture("grey mask.png", saved(), "its brightest pixel is 127 of 255, expected white", mask=hole(level=127)),
    *(Torture(f"mask of mode {mode}.png", saved(), mask=hole(mode)) for mode in ("1", "P", "RGB", "LA", "RGBA")),
    Torture("cmyk.jpg", saved("CMYK"), "colour mode CMYK is not supported, expected 8-bit RGB or grey"),
    Torture("cmyk.tif", saved("CMYK"), "colour mode CMYK is not supported"),
    Torture("16-bit colour.png", deep, _DEEP),
    Torture("16-bit colour.tif", deep, _DEEP),
    Torture("16-bit grey.png", deep, _DEEP),
    Torture("animated.webp", animated, "has several frames"),
    Torture("animated.png", animated, "has several frames"),
    Torture("huge.png", huge, "12500x8000 is 100 megapixels, expected at most 80"),
    *(Torture(f"truncated.{suffix}", cut(saved(), 0.6), _DAMAGED) for suffix in ("jpg", "png", "webp", "tif", "bmp")),
    Torture("truncated.avif", cut(saved(), 0.6), "truncated.avif: "),
    Torture("header alone.png", cut(saved(), 0.01), "header alone.png: "),
    Torture("empty.jpg", content(b""), "not a picture that can be read, expected JPEG"),
    Torture("text.jpg", content(b"This is not a photograph.\n"), "not a picture that can be read"),
    Torture("mask too small.png", saved(), "the mask is 10x20 pixels, expected 90x70", hole(size=(10, 20))),
    Torture("mask in colour.png", saved(), "the colour channels differ, expected a black", coloured_mask),
    Torture("mask of 16 bits.png", saved(), _DEEP, deep_mask),
    Torture("mask of text.png", saved(), "not a picture that can be read", content(b"hello")),
    Torture("without mask.png", saved(), "expected one mask of this name", nothing),
)


def write_torture_folder(folder: Path) -> None:
    """`photos` and `masks` below a folder."""
    for torture in TORTURES:
        photo = folder / "photos" / torture.name
        mask = mask_of(folder, torture)
        for path in (photo, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        torture.write(photo)
        (torture.mask or hole())(mask)


def mask_of(folder: Path, torture: Torture) -> Path:
    """Photographs of one name and several suffixes have one mask."""
    return folder / "masks" / f"{Path(torture.name).stem}.png"
