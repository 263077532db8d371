"""Texture for a network's smooth fill, from the known region of the photograph, guided by the fill.

Expectation-maximisation over patches (Kwatra et al., "Texture Optimization for Example-based Synthesis", 2005; Wexler,
Shechtman and Irani, "Space-Time Completion of Video", 2007) from coarse to fine, with texture features (Newson et al.,
"Video Inpainting of Complex Scenes", 2014) and coherent offsets (Barnes et al., "PatchMatch", 2009). Patches are
matched at two small sizes; their pixels are copied from the photograph in its own resolution.
"""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.inpainting.blocks import any_in_blocks, averaged
from cisi_runtime.inpainting.patch_level import PatchLevel, shifted
from cisi_runtime.inpainting.patch_match import Matcher, Offsets, candidates_from_coarser, parents
from cisi_runtime.inpainting.patch_vote import render, vote
from cisi_runtime.pictures.masks import hole_box

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Patches are matched where the longer side is below this, and at half of that. Matching at 256 pixels too took twice
# the time and was no better.
_MATCH_SIDE = 192
# Of the coarse and of the fine level: rounds of matching and averaging after the first sources, none at the coarse
# one; and what `Matcher` takes. The coarse level follows the guide, the fine one the patches: with a weight of 1 there
# too, the edges of stripes came out double.
_ROUNDS = (0, 2)
_GUIDE_WEIGHTS = (1.0, 0.5)
_TOLERANCES = (200_000.0, 50_000.0)
# A level with fewer source patches is left out.
_MIN_SOURCES = 40
# A window gets detail where its hole covers a square of `2 * _MIN_RADIUS + 1` pixels of the fine level.
_MIN_RADIUS = 2
# Detail that is this far from the guide, as the distance of two colours in grey levels, is halved; much less is hardly
# changed. Without it LPIPS is lower still, and PSNR is lower by 0.7 dB.
_HALVED_AT = 54.0
# Rows that are softened at a time.
_STRIP = 256


class DetailOutcome(enum.Enum):
    """What became of a window. The values are for people."""

    ADDED = "added"
    TOO_THIN = "the hole is thin"
    NO_SOURCES = "too little is known around the hole"


def add_detail(
    image: UInt8Array, fill: UInt8Array, unknown: BoolArray, target: BoolArray
) -> tuple[UInt8Array, DetailOutcome]:
    """Give the fill of a hole the texture of what is around it.

    image, fill: uint8 `[H, W, 3]`, the photograph and the network's picture of it; what the photograph holds where
    `unknown` is True has no influence.
    unknown: bool `[H, W]`, pixels that are no sources. target: bool `[H, W]`, the hole; part of `unknown`.

    Returns the filled picture and what became of it. Outside `target`, and everywhere if the hole is too thin to gain
    or hardly anything is known, it is `image` with `fill` where unknown.

    Two calls give the same bytes, with any number of threads. So do two CPUs of one architecture, with the same
    versions of NumPy and Pillow.
    """
    guided = np.where(unknown[..., None], fill, image)
    factor = 1
    while max(unknown.shape) / factor >= _MATCH_SIDE:
        factor *= 2
    small_target = any_in_blocks(target, factor)
    if not _holds_square(small_target, 2 * _MIN_RADIUS + 1):
        return guided, DetailOutcome.TOO_THIN
    offsets = _match(guided, any_in_blocks(unknown, factor), small_target, factor)
    if offsets is None:
        return guided, DetailOutcome.NO_SOURCES
    rendered = render(guided, target, offsets, factor)
    return _softened(rendered, guided, target), DetailOutcome.ADDED


def _match(guided: UInt8Array, unknown: BoolArray, target: BoolArray, factor: int) -> Offsets | None:
    """Offsets at `1 / factor` of the size, which the masks have; None where too little is known."""
    offsets: Offsets | None = None
    estimate, texture = guided, np.zeros((0, 0, 2), np.float32)
    settings = zip((2 * factor, factor), _ROUNDS, _GUIDE_WEIGHTS, _TOLERANCES, strict=True)
    for level_factor, rounds, guide_weight, tolerance in settings:
        level = _level(guided, unknown, target, level_factor, level_factor // factor)
        if level.is_source.sum() < _MIN_SOURCES:
            continue
        matcher = Matcher(level, guide_weight, tolerance)
        candidates: list[Offsets] = []
        if offsets is None:
            offsets, estimate, texture = _from_the_edge(matcher, level)
        else:
            candidates = candidates_from_coarser(offsets, level.active.shape)
            estimate = _enlarged(estimate, level)
            rows, columns = (parents(*counts) for counts in zip(level.active.shape, texture.shape[:2], strict=True))
            texture = texture[rows[:, None], columns]
        for _ in range(rounds):
            offsets = matcher.best(estimate, texture, candidates)
            estimate, texture = vote(level, offsets, estimate)
            candidates = [offsets]
        estimate = estimate[level.inside]
    return offsets


def _from_the_edge(matcher: Matcher, level: PatchLevel) -> tuple[Offsets, UInt8Array, FloatArray]:
    """First sources, ring by ring from the edge of the hole, so that what is around it goes on inside."""
    offsets, estimate = Offsets.none(level.active.shape), level.picture
    texture: FloatArray = np.zeros((*level.active.shape, 2), np.float32)
    filled, remaining = level.is_known, level.active
    while remaining.any():
        ring = remaining & shifted(filled, False).any(axis=0)
        if not ring.any():
            ring = remaining
        offsets = matcher.extend(offsets, ring, filled, estimate)
        estimate, texture = vote(level, offsets, estimate)
        filled, remaining = filled | ring, remaining & ~ring
    return offsets, estimate, texture


def _level(
    guided: UInt8Array, unknown: BoolArray, target: BoolArray, picture_factor: int, mask_factor: int
) -> PatchLevel:
    """The level that the picture and the masks, each reduced by its factor, make."""
    small_unknown, small_target = any_in_blocks(unknown, mask_factor).copy(), any_in_blocks(target, mask_factor)
    whole_rows, whole_columns = (side // picture_factor for side in guided.shape[:2])
    small_unknown[whole_rows:] = True  # blocks that the picture ends in are no sources
    small_unknown[:, whole_columns:] = True
    return PatchLevel(averaged(guided, picture_factor), small_unknown, small_target)


def _holds_square(mask: BoolArray, side: int) -> bool:
    """Whether `[H, W]` is True all over some square. What is outside the picture is not."""
    sums = np.pad(mask, ((1, 0), (1, 0))).cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    covered = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return bool((covered == side * side).any())


def _enlarged(estimate: UInt8Array, level: PatchLevel) -> UInt8Array:
    """The coarser level's estimate as a first one for this level, `[H', W', 3]`."""
    height, width = level.size
    # Of an odd side the coarse picture covers one pixel more.
    box = (0.0, 0.0, width / 2, height / 2)
    large = np.asarray(Image.fromarray(estimate).resize((width, height), Image.Resampling.BICUBIC, box))
    result = level.picture.copy()
    inside = level.target[level.inside]
    result[level.inside][inside] = large[inside]
    return result


def _softened(rendered: UInt8Array, guided: UInt8Array, target: BoolArray) -> UInt8Array:
    """The rendered picture, nearer to the guide where they differ much.

    The patches are right about texture and often wrong about where an edge is; the guide is smooth and right on
    average.
    """
    result = rendered.copy()
    rows, columns = hole_box(target, 0)
    for start in range(rows.start, rows.stop, _STRIP):  # strips bound the memory
        strip = slice(start, min(start + _STRIP, rows.stop)), columns
        guide = guided[strip].astype(np.float32)
        detail = rendered[strip] - guide
        length = np.sqrt(np.square(detail).sum(axis=2, keepdims=True))
        softened = guide + detail / (np.float32(1.0) + length / np.float32(_HALVED_AT))
        hole = target[strip]
        result[strip][hole] = np.rint(softened[hole]).astype(np.uint8)
    return result
