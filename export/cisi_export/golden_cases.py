"""The golden cases: pictures and holes made from a seed, and the reference's answers to them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from cisi_runtime.codec import decode_pixels
from cisi_runtime.golden import Golden, GoldenCase
from cisi_runtime.masks import centre_hole, rectangles, strokes
from cisi_train.checkpoint import Checkpoint
from cisi_train.network import Generator

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_SEED = 20_260_801
# Smaller maps would hide the dilations of 8 and 16 behind padding.
_HEIGHT, _WIDTH = 128, 160


def make_golden(checkpoint: Checkpoint) -> Golden:
    """The reference: the trained network's own forward and composite in float64, un-rewritten."""
    generator = checkpoint.generator().double()
    cases = tuple(
        GoldenCase(name, is_natural, image, hole_mask, _reference(generator, image, hole_mask))
        for name, is_natural, image, hole_mask in _inputs()
    )
    return Golden(checkpoint.contract.weights_sha256, cases)


def _reference(generator: Generator, image: UInt8Array, hole_mask: BoolArray) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        completed = generator.inpaint(
            torch.from_numpy(decode_pixels(image)).double(), torch.from_numpy(hole_mask[:, None]).double()
        )
    return completed.numpy().astype(np.float32)


def _inputs() -> list[tuple[str, bool, UInt8Array, BoolArray]]:
    rng = np.random.default_rng(_SEED)
    height, width = _HEIGHT, _WIDTH
    frame = np.ones((height, width), dtype=np.bool_)
    frame[16:-16, 16:-16] = False
    pair = np.stack([natural_picture(width, height, rng), natural_picture(width, height, rng)])
    pair_holes = np.stack([strokes(width, height, rng), rectangles(width, height, rng)])
    white = np.full((1, height, width, 3), 255, dtype=np.uint8)
    noise = rng.integers(0, 2, (1, height, width, 3)).astype(np.uint8) * np.uint8(255)
    return [
        ("natural centre", True, natural_picture(256, 256, rng)[None], centre_hole(256, 256)[None]),
        ("batch of two", True, pair, pair_holes),
        ("white all hole", False, white, np.ones((1, height, width), dtype=np.bool_)),
        ("saturated border", False, noise, frame[None]),
    ]


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
