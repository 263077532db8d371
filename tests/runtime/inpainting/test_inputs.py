"""Pictures and masks of every kind: what the plain arrays give, in the kind that came in; the rest is refused."""

import os
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cisi_runtime.inpainting.one_call as one_call
from cisi_runtime import Inpainter, inpaint
from cisi_runtime.errors import GraphError, MaskError, PictureError
from cisi_runtime.inpainting.inputs import hole_of
from tests.runtime.inpainting.test_inpainter import Painter

Pixels = npt.NDArray[np.uint8]
Hole = npt.NDArray[np.bool_]

MASKS: dict[str, Callable[[Hole], Any]] = {
    "bool": lambda hole: hole,
    "bool [H, W, 1]": lambda hole: hole[..., None],
    "0 and 255": lambda hole: hole.astype(np.uint8) * np.uint8(255),
    "0 and 1": lambda hole: hole.astype(np.uint8),
    "int64": lambda hole: hole.astype(np.int64) * 128,
    "float": lambda hole: hole.astype(np.float32) * 0.5,
    "PIL 1": Image.fromarray,
    "PIL L of 0 and 1": lambda hole: Image.fromarray(hole.astype(np.uint8)),
    "PIL RGB": lambda hole: Image.fromarray(hole).convert("RGB"),
}
# From RGB pixels and alpha, both uint8. Grey kinds take the first channel.
IMAGES: dict[str, Callable[[Pixels, Pixels], Any]] = {
    "uint8 [H, W, 3]": lambda rgb, _: rgb,
    "uint8 [H, W, 4]": lambda rgb, alpha: np.dstack([rgb, alpha]),
    "uint8 [H, W]": lambda rgb, _: rgb[..., 0],
    "uint8 [H, W, 1]": lambda rgb, _: rgb[..., :1],
    "float32 [H, W, 3]": lambda rgb, _: rgb.astype(np.float32) / 255,
    "float64 [H, W, 4]": lambda rgb, alpha: np.dstack([rgb, alpha]) / 255,
    "float32 [H, W]": lambda rgb, _: rgb[..., 0].astype(np.float32) / 255,
    "float64 [H, W, 1]": lambda rgb, _: rgb[..., :1] / 255,
    "PIL RGB": lambda rgb, _: Image.fromarray(rgb),
    "PIL RGBA": lambda rgb, alpha: Image.fromarray(np.dstack([rgb, alpha])),
    "PIL L": lambda rgb, _: Image.fromarray(rgb[..., 0]),
    "PIL LA": lambda rgb, alpha: Image.fromarray(np.dstack([rgb[..., 0], alpha])),
}


def levels(result: Any) -> Pixels:
    """As uint8 `[H, W, C]`."""
    pixels = np.asarray(result)
    pixels = pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255).astype(np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def grey(rgb: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(rgb).convert("L"))[..., None]


@settings(max_examples=60)
@given(
    kind=st.sampled_from(sorted(IMAGES)),
    mask_kind=st.sampled_from(sorted(MASKS)),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
    part=st.sampled_from([0.0, 0.01, 0.3, 1.0]),
)
def test_every_kind_gives_what_plain_arrays_give(
    kind: str, mask_kind: str, height: int, width: int, seed: int, part: float
) -> None:
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    alpha = rng.integers(0, 256, (height, width), dtype=np.uint8)
    hole = rng.random((height, width)) < part
    image = IMAGES[kind](rgb, alpha)
    before = np.array(image)
    inpaint = Inpainter(Painter())
    result = inpaint(image, MASKS[mask_kind](hole))
    is_grey, has_alpha = levels(image).shape[2] < 3, levels(image).shape[2] in (2, 4)
    plain = inpaint(np.repeat(rgb[..., :1], 3, axis=2) if is_grey else rgb, hole)
    assert type(result) is (Image.Image if kind.startswith("PIL") else np.ndarray)
    after = np.asarray(result)
    assert (after.dtype, after.shape) == (before.dtype, before.shape)
    assert getattr(result, "mode", "") == getattr(image, "mode", "")
    assert np.array_equal(after[~hole], before[~hole])
    colours = levels(result)[..., :-1] if has_alpha else levels(result)
    assert np.array_equal(colours, grey(plain) if is_grey else plain)
    if has_alpha:
        assert np.array_equal(after[..., -1], before[..., -1])
    if before.dtype != np.uint8:
        steps = np.arange(256).astype(before.dtype) / before.dtype.type(255)
        assert np.isin(after[hole], steps).all() or has_alpha
    assert np.array_equal(np.asarray(image), before)
    assert not (isinstance(result, np.ndarray) and np.shares_memory(result, image))


def test_the_second_picture_of_a_batch_is_as_if_it_were_alone() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 60, 80, 3), dtype=np.uint8)
    holes = rng.random((2, 60, 80)) < 0.2
    inpaint = Inpainter(Painter())
    alone = [inpaint(image, hole) for image, hole in zip(images, holes, strict=True)]
    for masks in (holes, holes[..., None], list(holes), holes.astype(np.uint8), [Image.fromarray(h) for h in holes]):
        assert np.array_equal(inpaint(images, masks), alone)
        listed = inpaint(list(images), masks)
        assert isinstance(listed, list)
        assert np.array_equal(listed, alone)
    one_for_all = [inpaint(image, holes[0]) for image in images]
    for mask in (holes[0], holes[0][..., None], Image.fromarray(holes[0])):
        assert np.array_equal(inpaint(images, mask), one_for_all)
        assert np.array_equal(inpaint(tuple(images), mask), one_for_all)
    floats = inpaint(images.astype(np.float32) / 255, holes)
    assert floats.dtype == np.float32
    assert np.array_equal(levels(floats[1]), alone[1])
    # Of several kinds and sizes.
    mixed: list[Any] = [images[0], Image.fromarray(images[1][:50])]
    first, second = inpaint(mixed, [holes[0], holes[1][:50]])
    assert np.array_equal(first, alone[0])
    assert isinstance(second, Image.Image)
    assert inpaint([], []) == []


def test_a_path_gives_an_upright_image_with_its_profile(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"  # to be turned by 90 degrees
    Image.fromarray(stored).save(tmp_path / "p.png", exif=exif, icc_profile=b"profile", dpi=(72, 72))
    upright = np.rot90(stored, 3)
    hole = np.zeros((60, 40), dtype=np.bool_)
    hole[20:40, 10:30] = True
    Image.fromarray(hole).save(tmp_path / "m.png")
    inpaint = Inpainter(Painter())
    expected = inpaint(np.ascontiguousarray(upright), hole)
    for path, mask in ((tmp_path / "p.png", tmp_path / "m.png"), (str(tmp_path / "p.png"), hole)):
        result = inpaint(path, mask)
        assert np.array_equal(np.asarray(result), expected)
        assert result.info["icc_profile"] == b"profile"
        assert dict(result.getexif()) == {0x0112: 1, 0x010F: "Maker"}
    # An image is taken as it is, and keeps what it says about itself.
    with Image.open(tmp_path / "p.png") as image:
        result = inpaint(image, hole.T)
    assert result.getexif()[0x0112] == 6
    assert result.info["icc_profile"] == b"profile"
    with (
        Image.open(tmp_path / "p.png") as image,
        pytest.raises(ValueError, match="the mask is 40x60 pixels, expected 60x40 as the image; EXIF orientation is"),
    ):
        inpaint(image, hole)


def test_a_file_with_a_mask_of_0_and_1(tmp_path: Path) -> None:
    hole = np.zeros((40, 60), dtype=np.bool_)
    hole[10:20, 10:50] = True
    Image.fromarray(hole.astype(np.uint8)).save(tmp_path / "m.png")
    assert np.array_equal(hole_of(tmp_path / "m.png", (40, 60), "hole_mask"), hole)


def test_levels_from_128_are_the_hole() -> None:
    mask = np.array([[0, 1, 127, 128]])
    for kind in (mask, mask.astype(np.uint8), Image.fromarray(mask.astype(np.uint8)), mask / 256):
        assert np.array_equal(hole_of(kind, (1, 4), "hole_mask"), [[False, False, False, True]])
    for kind in (mask.clip(max=127), Image.fromarray(mask.clip(max=127).astype(np.uint8))):
        with pytest.raises(ValueError, match="its largest value is 127, expected 128 and above, or 1, in the hole"):
            hole_of(kind, (1, 4), "hole_mask")


@pytest.mark.parametrize(
    ("mode", "expected"), [("1", "L"), ("P", "RGB"), ("PA", "RGBA"), ("L", "L"), ("LA", "LA"), ("RGBA", "RGBA")]
)
def test_modes_of_pillow(mode: str, expected: str) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).convert(mode)
    hole = np.zeros((40, 60), dtype=np.bool_)
    hole[10:20, 10:50] = True
    result = Inpainter(Painter())(image, hole)
    assert result.mode == expected
    assert np.array_equal(np.asarray(result)[~hole], np.asarray(image.convert(expected))[~hole])


def test_a_transparent_colour_becomes_alpha() -> None:
    image = Image.fromarray(np.full((40, 60, 3), 90, dtype=np.uint8))
    image.info["transparency"] = (90, 90, 90)
    result = Inpainter(Painter())(image, np.zeros((40, 60), dtype=np.bool_))
    assert result.mode == "RGBA"
    assert not np.asarray(result)[..., 3].any()


class Tensor:
    """Looks like PyTorch's."""

    __module__ = "torch"

    def __array__(self) -> npt.NDArray[np.float32]:
        return np.zeros((3, 40, 60), dtype=np.float32)


IMAGE, HOLE = np.zeros((40, 60, 3), dtype=np.uint8), np.zeros((40, 60), dtype=np.bool_)
FLOATS = IMAGE.astype(np.float32)


@pytest.mark.parametrize(
    ("image", "hole_mask", "error", "message"),
    [
        (None, HOLE, TypeError, "image: expected a NumPy array, a PIL image, a path, or a list of these, got NoneType"),
        (b"x", HOLE, TypeError, "got bytes"),
        (Tensor(), HOLE, TypeError, r"got torch.Tensor: tensor.cpu\(\).numpy\(\), with channels last"),
        (
            IMAGE,
            Tensor(),
            TypeError,
            "hole_mask: expected a NumPy array, a PIL image or a path, or a list .* got torch",
        ),
        (IMAGE, [HOLE], TypeError, "hole_mask: .* a list of these for several pictures, got list"),
        ([[1, 2]], HOLE, TypeError, r"image\[0\]: expected .* got list"),
        ([IMAGE, IMAGE[0, 0]], HOLE, ValueError, r"image\[1\]: expected \[H, W\], .* got uint8 \(3,\)"),
        (
            [IMAGE[None]],
            HOLE,
            ValueError,
            r"image\[0\]: expected a single picture in a list, got uint8 \(1, 40, 60, 3\)",
        ),
        (IMAGE.astype(np.uint16), HOLE, ValueError, r"float64 in \[0, 1\], got uint16 \(40, 60, 3\)"),
        (IMAGE[:0], HOLE[:0], ValueError, r"got uint8 \(0, 60, 3\)$"),
        (IMAGE[None][:0], HOLE, ValueError, r"got uint8 \(0, 40, 60, 3\)$"),
        (IMAGE.transpose(2, 0, 1), HOLE, ValueError, r"channels last, got .*: np.moveaxis\(image, 0, -1\)"),
        (IMAGE[None].transpose(0, 3, 1, 2), HOLE, ValueError, r"channels last, got .*: np.moveaxis\(image, 1, -1\)"),
        (np.zeros((5, 40, 60), np.uint8), HOLE, ValueError, r"a batch of grey pictures is \[N, H, W, 1\]"),
        (FLOATS + 2, HOLE, ValueError, r"image: expected floats in \[0, 1\], got 2 to 2$"),
        (np.where(HOLE[..., None], FLOATS, np.nan), HOLE, ValueError, r"\[0, 1\], got nan to nan, some NaN"),
        (FLOATS[None] - 1, HOLE, ValueError, r"image: expected floats in \[0, 1\], got -1 to -1$"),
        (IMAGE, HOLE.T, ValueError, "hole_mask: the mask is 40x60 pixels, expected 60x40 as the image"),
        (IMAGE, HOLE[:5], ValueError, "the mask is 60x5 pixels, expected 60x40 as the image$"),
        (IMAGE, IMAGE, ValueError, r"hole_mask: expected \[H, W\] or \[H, W, 1\], got uint8 \(40, 60, 3\)"),
        (IMAGE, HOLE.astype(int) + 300, ValueError, "hole_mask: expected integers from 0 to 255, got 300 to 300"),
        (IMAGE, HOLE.astype(float) + 3, ValueError, r"hole_mask: expected floats in \[0, 1\], got 3 to 3"),
        (IMAGE, HOLE.astype(str), ValueError, "hole_mask: expected booleans, integers from 0 to 255 or floats"),
        ([IMAGE, IMAGE], [HOLE], ValueError, "hole_mask: 1 masks, expected 2 as there are pictures, or one"),
        (IMAGE[None], np.stack([HOLE] * 3), ValueError, "hole_mask: 3 masks, expected 1 as there are pictures"),
        (Image.new("CMYK", (60, 40)), HOLE, ValueError, "image: expected a PIL image of mode 1, L, .* got CMYK"),
        (Image.new("RGB", (0, 40)), HOLE, ValueError, "image: expected a PIL image with pixels, got 0x40"),
        (IMAGE, Image.new("F", (60, 40)), ValueError, "hole_mask: expected a PIL image of mode 1, L, .* got F"),
        (IMAGE, Image.new("RGB", (60, 40), "red"), ValueError, "hole_mask: the colour channels differ"),
        ("missing.png", HOLE, PictureError, "missing.png: no such file"),
        (IMAGE, "missing.png", PictureError, "missing.png: no such file"),
    ],
)
def test_what_is_refused(image: Any, hole_mask: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Inpainter(Painter())(image, hole_mask)


def test_a_mask_file_of_another_size(tmp_path: Path) -> None:
    Image.fromarray(HOLE[:5]).save(tmp_path / "m.png")
    with pytest.raises(MaskError, match=r"m.png: the mask is 60x5 pixels, expected 60x40 as the picture"):
        Inpainter(Painter())(IMAGE, tmp_path / "m.png")


def test_it_says_what_it_is(tiny_graph: Path) -> None:
    with Inpainter(tiny_graph, threads=2) as inpaint:
        shown = f"Inpainter('{tiny_graph.name}', backend='onnxruntime', threads=2, detail=True)"
        assert repr(inpaint) == shown
    assert repr(inpaint) == f"<closed {shown}>"
    assert repr(Inpainter(Painter(), detail=False)) == "Inpainter(…, backend='painter', detail=False)"


@pytest.fixture
def _none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_call, "_open", {})


@pytest.mark.usefixtures("_none_open")
def test_one_call_opens_a_network_once(tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Inpainter] = []

    class Counted(Inpainter):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            if self._owns_backend:
                opened.append(self)

    monkeypatch.setattr(one_call, "Inpainter", Counted)
    graph = tmp_path / "best.onnx"
    graph.write_bytes(tiny_graph.read_bytes())
    image, hole = np.full((64, 64, 3), 90, dtype=np.uint8), np.zeros((64, 64), dtype=np.bool_)
    hole[20:40, 20:40] = True
    with Inpainter(graph, threads=1) as inpainter, Inpainter(inpainter.backend, detail=False) as plain:
        expected, without_detail = inpainter(image, hole), plain(image, hole)
    results: list[Pixels] = []
    threads = [
        threading.Thread(target=lambda: results.append(inpaint(image, hole, model=graph, threads=1))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(inpaint(image, hole, model="best.onnx", threads=1, detail=False), without_detail)
    assert len(opened) == 1  # a relative path is the same file, and detail needs no second network
    os.utime(graph, ns=(0, 0))
    inpaint(image, hole, model=graph, threads=1)
    assert len(opened) == 2  # written anew
    assert not opened[0].backend.is_closed  # somebody may be using it
    graph.unlink()
    with pytest.raises(GraphError, match="best.onnx"):
        inpaint(image, hole, model=graph, threads=1)
    # In a process that was forked off, another one opens.
    graph.write_bytes(tiny_graph.read_bytes())
    os.utime(graph, ns=(0, 0))
    parent = os.getpid()
    forked = types.SimpleNamespace(getpid=lambda: parent + 1, fspath=os.fspath)
    with monkeypatch.context() as patch:
        patch.setattr(one_call, "os", forked)
        inpaint(image, hole, model=graph, threads=1)
        assert len(opened) == 3
    one_call._close()
    assert [inpainter.backend.is_closed for inpainter in opened] == [False, True, False]
