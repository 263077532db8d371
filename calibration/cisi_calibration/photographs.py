"""Which photographs give ranges, which guide the search, and which give the verdict."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cisi_runtime.errors import DataError
from cisi_runtime.pictures.masks import random_hole
from cisi_runtime.pictures.reading import find_pictures, left_out_masks
from cisi_runtime.pictures.resizing import read_square
from cisi_runtime.progress_on_stderr import counted

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

SIDE = 256
# Pictures that guide the search, and as many for the verdict; in small folders a quarter each.
_APART = 16
_MIN_PICTURES = 12
# Extremes are rare: fewer pictures than this give a warning. It is the smallest number in the table "Calibration
# methods" of docs/results.md.
_ENOUGH = 50
# Grey levels. A picture whose standard deviation is smaller has no content.
_FLAT = 2.0
# Grey levels. When thumbnails differ from their nearest neighbour by less, in the median, the folder shows one scene.
_ALIKE = 4.0
_THUMBNAIL = 8

Thumbnail = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Paths of a folder, drawn by a seed.

    ranges: to take ranges from.
    search: to place Q/DQ by.
    unseen: for the verdict.
    sha256: over the names and contents of the files in `ranges`, in order. The range table carries it.
    warnings: for people.
    """

    ranges: tuple[Path, ...]
    search: tuple[Path, ...]
    unseen: tuple[Path, ...]
    sha256: str
    warnings: tuple[str, ...]


def choose_photographs(folder: Path, images: int, seed: int = 0) -> Photographs:
    """Draw `images` photographs for the ranges, and others for the search and the verdict, and look at each of them.

    Raises DataError for fewer than 12 usable ones (a picture of one colour is not usable), and PictureError for one
    that cannot be read: ranges must not depend on pictures that were silently left out.
    """
    paths = find_pictures(folder)
    if len(paths) < _MIN_PICTURES:
        raise DataError(f"{folder}: {len(paths)} pictures, expected {_MIN_PICTURES} or more to calibrate with")
    order = np.random.default_rng(seed).permutation(len(paths))
    wanted = 2 * min(_APART, len(paths) // 4) + images
    usable, flat = _draw([paths[index] for index in order], wanted)
    if len(usable) < min(wanted, _MIN_PICTURES):
        raise DataError(
            f"{folder}: {len(flat)} of {len(paths)} pictures are of one colour, such as {flat[0].name}: expected "
            f"{_MIN_PICTURES} or more with content"
        )
    # A folder that was exhausted is divided by what is usable.
    apart = min(_APART, (len(paths) if len(usable) == wanted else len(usable)) // 4)
    drawn = list(usable)
    ranges = tuple(drawn[2 * apart :])
    warnings = _warnings(ranges, flat, np.stack(list(usable.values())))
    if (masks := left_out_masks(folder)) is not None:
        warnings.append(masks.removeprefix(f"{folder}: "))
    return Photographs(
        ranges, tuple(drawn[:apart]), tuple(drawn[apart : 2 * apart]), _sha256(folder, ranges), tuple(warnings)
    )


def picture_and_hole(path: Path) -> tuple[UInt8Array, BoolArray]:
    """A photograph `[256, 256, 3]` with a training hole `[256, 256]`. The hole is drawn from the pixels, so neither the
    order nor the number of pictures changes it."""
    crop = read_square(path, SIDE)
    rng = np.random.default_rng(list(hashlib.sha256(crop.tobytes()).digest()))
    return crop, random_hole(SIDE, SIDE, rng)


def _draw(paths: Sequence[Path], wanted: int) -> tuple[dict[Path, Thumbnail], list[Path]]:
    """The first `wanted` pictures with content, with their thumbnails, and the flat ones met on the way."""
    usable: dict[Path, Thumbnail] = {}
    flat: list[Path] = []
    for path in counted(paths, "looking at pictures", "image", leave=False):
        if len(usable) == wanted:
            break
        thumbnail = read_square(path, _THUMBNAIL).astype(np.float64)
        if thumbnail.std(axis=(0, 1)).max() < _FLAT:
            flat.append(path)
        else:
            usable[path] = thumbnail
    return usable, flat


def _warnings(ranges: Sequence[Path], flat: Sequence[Path], thumbnails: Thumbnail) -> list[str]:
    warnings = []
    if flat:
        warnings.append(f"{len(flat)} pictures are of one colour and were left out: {flat[0]}")
    if len(ranges) < _ENOUGH:
        warnings.append(
            f"ranges of {len(ranges)} pictures: the largest activations are rare, and fewer than {_ENOUGH} pictures "
            "miss them"
        )
    nearest = float(np.median(_nearest_differences(thumbnails)))
    if nearest < _ALIKE:
        warnings.append(
            f"the pictures are too alike (their nearest neighbours differ by {nearest:.1f} of 255 levels): "
            "ranges of one scene do not hold for others"
        )
    return warnings


def _sha256(folder: Path, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(folder)).encode(errors="surrogateescape"))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _nearest_differences(thumbnails: Thumbnail) -> npt.NDArray[np.float64]:
    """Mean absolute difference of each thumbnail from its nearest neighbour."""
    rows = thumbnails.reshape(len(thumbnails), -1)
    nearest = np.empty(len(rows))
    for index, row in enumerate(rows):
        difference = np.abs(rows - row).mean(axis=1)
        difference[index] = np.inf
        nearest[index] = difference.min()
    return nearest
