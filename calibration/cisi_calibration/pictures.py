"""Which photographs calibrate, which guide the search, and which neither of them sees."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from cisi_runtime.errors import DataError
from cisi_runtime.masks import random_hole
from cisi_runtime.pictures import find_pictures, read_square

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

SIDE = 256
# Pictures that guide the search, and as many that nothing sees before the end; of small folders a quarter each.
_APART = 16
_FEWEST_PICTURES = 12
# Extremes are rare: a warning below this number, the smallest that the README's table was made with.
_ENOUGH = 50
# Grey levels: a picture that varies less than the first has no content; folders whose pictures differ from their
# nearest neighbour by less than the second, at 8x8 pixels and in the median, hold one scene over and over.
_FLAT, _ALIKE = 2.0, 4.0
_THUMBNAIL = 8


@dataclasses.dataclass(frozen=True)
class Photographs:
    """Paths of a folder, drawn by a seed: `ranges` to observe, `search` to place by, `unseen` for the verdict.

    sha256: over the names and contents of the files in `ranges`, in order; the table's key. warnings: for people.
    """

    ranges: tuple[Path, ...]
    search: tuple[Path, ...]
    unseen: tuple[Path, ...]
    sha256: str
    warnings: tuple[str, ...]


def choose_photographs(folder: Path, images: int, seed: int = 0) -> Photographs:
    """Draw `images` photographs to observe, beside those for the search and the verdict, and look at each of them.

    Raises DataError for fewer than 12 usable ones (a picture of one colour is not), and PictureError for one that
    cannot be read: ranges must not depend on pictures left out in silence.
    """
    paths = find_pictures(folder)
    if len(paths) < _FEWEST_PICTURES:
        raise DataError(f"{folder}: {len(paths)} pictures, expected {_FEWEST_PICTURES} or more to calibrate with")
    apart = min(_APART, len(paths) // 4)
    thumbnails: list[npt.NDArray[np.float64]] = []
    usable: list[Path] = []
    flat: list[Path] = []
    order = np.random.default_rng(seed).permutation(len(paths))
    for index in tqdm(order, desc="looking at pictures", unit="image", mininterval=1.0):
        if len(usable) == 2 * apart + images:
            break
        thumbnail = read_square(paths[index], _THUMBNAIL).astype(np.float64)
        if thumbnail.std(axis=(0, 1)).max() < _FLAT:
            flat.append(paths[index])
        else:
            thumbnails.append(thumbnail)
            usable.append(paths[index])
    else:
        if len(usable) < _FEWEST_PICTURES:
            raise DataError(
                f"{folder}: {len(flat)} of {len(paths)} pictures are of one colour, such as {flat[0].name}: expected "
                f"{_FEWEST_PICTURES} or more with content"
            )
        apart = min(_APART, len(usable) // 4)
    warnings = []
    if flat:
        warnings.append(f"{len(flat)} pictures are of one colour and were left out: {flat[0]}")
    ranges = tuple(usable[2 * apart :])
    if len(ranges) < _ENOUGH:
        warnings.append(
            f"ranges of {len(ranges)} pictures: the largest activations are rare, and fewer than {_ENOUGH} pictures "
            "miss them"
        )
    nearest = _nearest_differences(np.stack(thumbnails))
    if np.median(nearest) < _ALIKE:
        warnings.append(
            f"the pictures are too alike (their nearest neighbours differ by {np.median(nearest):.1f} of 255 levels): "
            "ranges of one scene do not hold for others"
        )
    digest = hashlib.sha256()
    for path in ranges:
        digest.update(str(path.relative_to(folder)).encode(errors="surrogateescape"))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return Photographs(
        ranges, tuple(usable[:apart]), tuple(usable[apart : 2 * apart]), digest.hexdigest(), tuple(warnings)
    )


def picture_and_hole(path: Path) -> tuple[UInt8Array, BoolArray]:
    """A photograph `[256, 256, 3]` and a hole as in training `[256, 256]`, which its pixels decide: neither the order
    nor the number of pictures changes it."""
    crop = read_square(path, SIDE)
    rng = np.random.default_rng(list(hashlib.sha256(crop.tobytes()).digest()))
    return crop, random_hole(SIDE, SIDE, rng)


def _nearest_differences(thumbnails: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    flat = thumbnails.reshape(len(thumbnails), -1)
    nearest = np.empty(len(flat))
    for index, own in enumerate(flat):
        difference = np.abs(flat - own).mean(axis=1)
        difference[index] = np.inf
        nearest[index] = difference.min()
    return nearest
