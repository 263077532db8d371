"""A folder of photographs as training samples, each a pure function of the seed and the sample's number."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from cisi_runtime.codec import decode_pixels
from cisi_runtime.errors import DataError, PictureError
from cisi_runtime.masks import random_hole
from cisi_runtime.pictures import SUFFIXES, check_picture, find_pictures, read_picture, read_square, resize_short_side

# The paper's protocol: short side resized to 286, then a random crop of 256.
_SHORT_SIDE_PER_CROP = 286 / 256
_MOST_HELD_OUT = 60


@dataclasses.dataclass(frozen=True)
class PhotoFolder:
    """The readable photographs below a folder, split into those to train on and those held out to select by.

    sha256 is over the relative names and sizes in bytes of all of them; unreadable: the errors of the others.
    """

    folder: Path
    training: tuple[Path, ...]
    held_out: tuple[Path, ...]
    sha256: str
    unreadable: tuple[str, ...]

    def report(self) -> list[str]:
        """What was found, in lines for people."""
        found = f"{self.folder}: {len(self.training)} pictures to train on, {len(self.held_out)} held out"
        return [found] + [f"left out: {reason}" for reason in self.unreadable]


def open_folder(folder: Path) -> PhotoFolder:
    """Find photographs, recursively, and decode each once: a truncated one would end a run hours later.

    One in ten, at most 60, is held out: those whose names hash lowest, so that the choice does not depend on order.
    Raises DataError when there is no readable photograph.
    """
    good: list[Path] = []
    unreadable: list[str] = []
    for path in tqdm(find_pictures(folder), desc="looking at pictures", unit="image", leave=False):
        try:
            check_picture(path)
        except PictureError as error:
            unreadable.append(str(error))
        else:
            good.append(path)
    if not good:
        damaged = f" ({len(unreadable)} unreadable, the first: {unreadable[0]})" if unreadable else ""
        raise DataError(f"{folder}: no pictures found, expected {', '.join(SUFFIXES)} files{damaged}")
    digest = hashlib.sha256()
    for path in good:
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
    by_hash = sorted(good, key=lambda path: hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest())
    held_out = set(by_hash[: min(_MOST_HELD_OUT, len(good) // 10)])
    return PhotoFolder(
        folder,
        tuple(path for path in good if path not in held_out),
        tuple(path for path in good if path in held_out),
        digest.hexdigest(),
        tuple(unreadable),
    )


class TrainingSamples(Dataset[tuple[Tensor, Tensor]]):
    """Sample n: an image `[3, size, size]` in [-1, 1] and a pair of hole masks `[2, 1, size, size]` (1 = hole).

    Photograph, crop, mirroring and holes depend on `seed` and n alone, so a resumed run sees what an uninterrupted one
    would have seen, with any number of workers.
    """

    def __init__(self, paths: tuple[Path, ...], size: int, seed: int) -> None:
        self._paths, self._size, self._seed = paths, size, seed

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(number, len(self._paths))
        order = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._paths))
        rng = np.random.default_rng([self._seed, 1, number])
        rgb = resize_short_side(
            read_picture(self._paths[order[position]]).rgb, round(self._size * _SHORT_SIDE_PER_CROP)
        )
        top, left = (rng.integers(0, side - self._size + 1) for side in rgb.shape[:2])
        crop = rgb[top : top + self._size, left : left + self._size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        holes = np.stack([random_hole(self._size, self._size, rng) for _ in range(2)])
        return torch.from_numpy(decode_pixels(crop)), torch.from_numpy(holes[:, None].astype(np.float32))


def held_out_pictures(paths: tuple[Path, ...], size: int) -> npt.NDArray[np.uint8]:
    """Central crops `[N, size, size, 3]` of photographs resized to short side `size`."""
    return np.stack([read_square(path, size) for path in paths])
