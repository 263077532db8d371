"""Which parts of a hole lie in smooth surroundings: skies, walls, water."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cisi_runtime.inpainting.known_means import known_means
from cisi_runtime.inpainting.pull_push import pull_push

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float32]

# Relaxations of each level of a continuation. Without them posts in a glow were 4 dB worse than Telea's, with 4 they
# are 6 dB better. With 8 a triangle there was worse by 0.5 dB.
RELAXATIONS = 4
# Standard deviation, in grey levels of single pixels, up to which surroundings are smooth, and from which on they are
# textured. The coarse grain of the tests has 5.
_SMOOTH, _TEXTURED = 8.0, 12.0
# Averages of blocks vary less than pixels by this power of the side: 1 for independent grain, 0 for large shapes. From
# four pixels on blocks hold no grain. With 0.75 and a limit of 7 coarse grain was taken for texture.
_GRAIN_POWER, _GRAIN_SIDE = 0.6, 4
# Distances from the quadratic surface, in grey levels: up to the first it is the same sky, from the second on it is
# something else. With 20 and 40 the sky took the colour of what is below (`eval/places`: 0.02 dB).
_SAME, _OTHER = 12.0, 20.0
# Share of smooth surroundings from which on the surface begins to count, where the network shows something else; the
# same where it shows nothing that is around; and how much more of it makes the surface count alone. On `open/val` 0.5
# instead of 0.7 lost 0.4 dB in single photographs: an object that enters the hole goes on in it.
_SHARE, _SHARE_OF_NOTHING, _SHARE_RANGE = 0.7, 0.3, 0.25
# How far, of the way from the surface to the texture around, the network has to go to show that.
_SHOWN = 0.2
# Distance of that texture from the surface, in grey levels, below which it says nothing.
_DISTINCT = 10.0


def evenness(residual: FloatArray, known: BoolArray, block: int) -> tuple[FloatArray, FloatArray]:
    """Local means of what a quadratic surface leaves, `[H, W, 3]`, and how even that is: `[H, W]`, from 0, which is
    texture, to 1.

    residual: `[H, W, 3]`, averages of blocks of `block` pixels less the surface. known: `[H, W]`.
    """
    both = np.concatenate([residual, np.square(residual)], axis=2)
    means = known_means(both, known.astype(np.float32), max(2, round(4 / block)))[0]
    mean, square = means[..., :3], means[..., 3:]
    deviation = np.sqrt(np.maximum(square - np.square(mean), 0.0).mean(axis=2))
    return mean, _falling(deviation * np.float32(min(block, _GRAIN_SIDE) ** _GRAIN_POWER), _SMOOTH, _TEXTURED)


def nearness(rest: FloatArray) -> FloatArray:
    """Whether local means of what a quadratic surface leaves, `[H, W, 3]`, are of the surface, 1, or of something else,
    0: `[H, W]`."""
    return _falling(np.sqrt(np.square(rest).mean(axis=2)), _SAME, _OTHER)


def surface_weight(
    smooth: FloatArray, known: BoolArray, picture: FloatArray, surface: FloatArray, fill: FloatArray
) -> FloatArray:
    """How much the smooth surface is to count beside the network's fill, from 0 to 1, `[H, W]`.

    smooth: `[H, W]`, from 0 to 1, what is even and near the surface. known: `[H, W]`.
    picture, surface, fill: `[H, W, 3]`.

    It counts where most of what is around is smooth. It does not count between two textured places in the same row or
    column: a horizon or a roof goes on from one to the other. Where the row's or the column's ends are smooth, less is
    needed, unless the fill is as if what is textured around went on: a halo is not.
    """
    share = pull_push(smooth[..., None], known, default=0.0, relaxations=RELAXATIONS)[..., 0]
    textured = known & (smooth < 0.5)
    way = pull_push(picture, textured, default=127.5) - surface
    shown = known_means(fill - surface, np.ones_like(smooth), 1)[0]
    going = (shown * way).sum(axis=2) / np.maximum(np.square(way).sum(axis=2), 3.0 * _DISTINCT**2)
    nothing = _between(smooth, known) * _falling(going, 0.0, _SHOWN)
    needed = _SHARE - (_SHARE - _SHARE_OF_NOTHING) * nothing
    weight = np.clip((share - needed) / _SHARE_RANGE, 0.0, 1.0)
    weight = weight * weight * (3.0 - 2.0 * weight) * (1.0 - _between(1.0 - smooth, known))
    softened: FloatArray = known_means(weight[..., None].astype(np.float32), np.ones_like(smooth), 1)[0][..., 0]
    return softened


def _falling(values: FloatArray, one: float, zero: float) -> FloatArray:
    """1 up to `one`, 0 from `zero` on."""
    falling: FloatArray = np.clip((zero - values) / (zero - one), 0.0, 1.0).astype(np.float32)
    return falling


def _between(values: FloatArray, known: BoolArray) -> FloatArray:
    """Whether an unknown cell `[H, W]` lies between two known ones of a high value, in its row or its column: the lower
    of the two values, 0 where one end is the picture's; the higher of row and column."""
    highest: FloatArray = np.maximum(_between_in_row(values, known), _between_in_row(values.T, known.T).T)
    return np.where(known, np.float32(0.0), highest)


def _between_in_row(values: FloatArray, known: BoolArray) -> FloatArray:
    width = known.shape[1]
    ends = np.where(known, values, np.float32(0.0))
    left = np.maximum.accumulate(np.where(known, np.arange(width), 0), axis=1)
    right = np.minimum.accumulate(np.where(known, np.arange(width), width - 1)[:, ::-1], axis=1)[:, ::-1]
    lower: FloatArray = np.minimum(np.take_along_axis(ends, left, axis=1), np.take_along_axis(ends, right, axis=1))
    return lower
