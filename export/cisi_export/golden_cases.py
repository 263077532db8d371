"""The golden cases: pictures and holes generated from a seed, and the reference's results."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from cisi_runtime.codec import decode_pixels
from cisi_runtime.parity.golden import Golden, GoldenCase
from cisi_runtime.pictures.masks import centre_hole, rectangles, strokes
from cisi_runtime.progress_on_stderr import ShowProgress, show_nothing
from cisi_train.checkpoint import Checkpoint
from cisi_train.network import Generator

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_SEED = 20_260_801
# On maps of the smaller ones the dilations of 8 and 16 see little but padding.
_SQUARE, _WIDE, _TALL, _SMALL = (192, 192), (128, 160), (160, 128), (96, 64)
# What people run. A fault may show at some sizes alone.
_USUAL, _LONG, _TOWER = (256, 256), (64, 528), (528, 64)
MakePicture = Callable[[int, int, np.random.Generator], UInt8Array]
MakeHole = Callable[[int, int, np.random.Generator], BoolArray]


def make_golden(
    checkpoint: Checkpoint,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    progress: ShowProgress = show_nothing,
) -> Golden:
    """Golden cases with the reference: the trained network's own forward and composite in float64, not rewritten.

    size (height, width), batch: of a graph that takes no others. None: seven sizes, batches of one to three.
    """
    in_float32, in_float64 = checkpoint.generator(), checkpoint.generator().double()
    inputs = list(_inputs(size, batch))
    cases = []
    for number, (name, kind, image, hole_mask) in enumerate(inputs):
        progress("reference: the trained network in float64", number, len(inputs))
        completed = _completed(in_float64, image, hole_mask)
        error = float(np.abs(_completed(in_float32, image, hole_mask) - completed).max())
        cases.append(GoldenCase(name, kind, image, hole_mask, completed.astype(np.float32), error))
    progress("reference: the trained network in float64", len(inputs), len(inputs))
    return Golden(checkpoint.contract.weights_sha256, tuple(cases))


def _completed(generator: Generator, image: UInt8Array, hole_mask: BoolArray) -> npt.NDArray[np.floating]:
    """The trained network's own forward and composite, in the precision of its weights."""
    dtype = next(generator.parameters()).dtype
    with torch.no_grad():
        completed = generator.inpaint(
            torch.from_numpy(decode_pixels(image)).to(dtype), torch.from_numpy(hole_mask[:, None]).to(dtype)
        )
    return np.asarray(completed.numpy())


def _inputs(size: tuple[int, int] | None, batch: int | None) -> Iterator[tuple[str, str, UInt8Array, BoolArray]]:
    """Name, kind, pictures `[N, H, W, 3]` and masks `[N, H, W]` of each case."""
    # The most telling cases come first: a file over its size limit drops the last ones.
    cases: list[tuple[str, str, MakePicture, MakeHole, tuple[int, int], int]] = [
        ("centre", "natural", natural_picture, _centre, _SQUARE, 1),
        ("two, strokes", "natural", natural_picture, strokes, _TALL, 2),
        ("white, border", "flat", _flat(255), _border, _WIDE, 1),
        ("all hole", "flat", natural_picture, _all, _WIDE, 1),
        ("saturated noise, strokes", "noise", _saturated, strokes, _SMALL, 3),
        ("black, centre", "flat", _flat(0), _centre, _WIDE, 1),
        ("one pixel", "noise", natural_picture, _one_pixel, _WIDE, 1),
        ("noise, rectangles", "noise", _noise, rectangles, _SMALL, 1),
        ("no hole", "natural", natural_picture, _none, _SMALL, 1),
        ("usual size", "natural", natural_picture, _centre, _USUAL, 1),
        ("long", "natural", natural_picture, rectangles, _LONG, 1),
        ("tower", "natural", natural_picture, rectangles, _TOWER, 1),
    ]
    if size is not None:
        # Nothing but their sizes tells these from the first ones.
        cases = [case for case in cases if case[4] not in (_USUAL, _LONG, _TOWER)]
    rng = np.random.default_rng(_SEED)
    for name, kind, picture, hole, case_size, count in cases:
        height, width = size or case_size
        number = batch or count
        pictures = np.stack([picture(height, width, rng) for _ in range(number)])
        yield name, kind, pictures, np.stack([hole(height, width, rng) for _ in range(number)])


def _centre(height: int, width: int, _rng: np.random.Generator) -> BoolArray:
    return centre_hole(height, width)


def _all(height: int, width: int, _rng: np.random.Generator) -> BoolArray:
    return np.ones((height, width), dtype=np.bool_)


def _none(height: int, width: int, _rng: np.random.Generator) -> BoolArray:
    return np.zeros((height, width), dtype=np.bool_)


def _border(height: int, width: int, _rng: np.random.Generator) -> BoolArray:
    hole = np.ones((height, width), dtype=np.bool_)
    hole[16:-16, 16:-16] = False
    return hole


def _one_pixel(height: int, width: int, rng: np.random.Generator) -> BoolArray:
    hole = np.zeros((height, width), dtype=np.bool_)
    hole[rng.integers(height), rng.integers(width)] = True
    return hole


def _flat(level: int) -> MakePicture:
    return lambda height, width, _rng: np.full((height, width, 3), level, dtype=np.uint8)


def _noise(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def _saturated(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    return rng.integers(0, 2, (height, width, 3), dtype=np.uint8) * np.uint8(255)


def natural_picture(height: int, width: int, rng: np.random.Generator) -> UInt8Array:
    """Noise with the amplitude spectrum of photographs (1/f), correlated between the colours: `[H, W, 3]`."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0
    planes = [
        np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) / frequency, (height, width)) for _ in "gxy"
    ]
    grey, x, y = (plane / plane.std() for plane in planes)
    rgb = np.stack([grey + 0.3 * x, grey, grey + 0.3 * y], axis=-1)
    pixels: UInt8Array = np.clip(np.rint(rgb * 48 + 120), 0, 255).astype(np.uint8)
    return pixels
