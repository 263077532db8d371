"""A folder of photographs as training samples. Each is a pure function of the seed and the sample's number."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cisi_runtime.errors import DataError, PictureError
from cisi_runtime.pictures.masks import hole_pair
from cisi_runtime.pictures.picture import SUFFIXES
from cisi_runtime.pictures.reading import check_picture, find_pictures, left_out_masks, read_picture
from cisi_runtime.pictures.resizing import MAX_RATIO, read_square, resize_short_side, within_ratio
from cisi_runtime.progress_on_stderr import counted
from cisi_train.scene_categories import of_categories

# The paper's protocol: short side resized to 286, then a random crop of 256.
_SHORT_SIDE_PER_CROP = 286 / 256
# Of images, networks and weights: GPUs want it, and on CPUs a step takes 6 to 18 % less time (docs/training.md).
MEMORY_FORMAT = torch.channels_last
_MAX_HELD_OUT = 60


@dataclasses.dataclass(frozen=True)
class PhotoFolder:
    """The readable photographs below a folder.

    folder: the folder itself.
    training: to train on.
    held_out: to select the best weights by.
    files_sha256: over the relative names and the sizes in bytes of all of them: files that a run began with.
    names_sha256: over the relative names without suffixes: the same photographs, also once `cisi-pack` has copied them.
    unreadable: the errors of the other files.
    """

    folder: Path
    training: tuple[Path, ...]
    held_out: tuple[Path, ...]
    files_sha256: str
    names_sha256: str
    unreadable: tuple[str, ...]

    def report(self) -> list[str]:
        """What is in the folder, in lines for people."""
        summary = f"{self.folder}: {len(self.training)} pictures to train on, {len(self.held_out)} held out"
        if self.unreadable:
            summary += f", {len(self.unreadable)} left out"
        masks = left_out_masks(self.folder)
        return [summary] + [f"left out: {reason}" for reason in self.unreadable] + ([masks] if masks else [])


def open_folder(folder: Path, categories: Sequence[str] = ()) -> PhotoFolder:
    """Find photographs, recursively, and decode each once: a truncated one would end a run hours later.

    categories: only pictures of these scene categories (see `of_categories`); empty: all.

    One in ten, at most 60, is held out: those whose names have the lowest hashes, so the choice does not depend on
    order. Raises DataError when there is no readable photograph.
    """
    good: list[Path] = []
    unreadable: list[str] = []
    paths = find_pictures(folder)
    if categories:
        paths = of_categories(folder, paths, categories)
    for path in counted(paths, "looking at pictures", "image", leave=False):
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
    names = sorted(path.relative_to(folder).with_suffix("").as_posix() for path in good)
    by_hash = sorted(good, key=lambda path: hashlib.sha256(path.relative_to(folder).as_posix().encode()).digest())
    held_out = set(by_hash[: min(_MAX_HELD_OUT, len(good) // 10)])
    return PhotoFolder(
        folder,
        tuple(path for path in good if path not in held_out),
        tuple(path for path in good if path in held_out),
        digest.hexdigest(),
        hashlib.sha256("\n".join(names).encode()).hexdigest(),
        tuple(unreadable),
    )


class TrainingSamples(Dataset[tuple[Tensor, Tensor]]):
    """Sample n: a crop uint8 `[size, size, 3]` and a pair of hole masks bool `[2, size, size]`, True = hole.

    Samples are small on their way to the training process; `decode_batch` turns a batch into what the networks take.
    Photograph, crop, mirroring and holes depend on `seed` and n alone. So a resumed run sees what an uninterrupted one
    would have seen, with any number of workers.

    zoom: enlarge each photograph by a random factor from 1 to this before the crop, so that one photograph has more
        crops that differ.
    permute_colours: exchange red, green and blue of every other crop at random, so that colours which are rare in
        photographs are not rare in training.
    """

    def __init__(
        self,
        paths: tuple[Path, ...],
        size: int,
        seed: int,
        holes: str = "mixed",
        *,
        zoom: float = 1.0,
        permute_colours: bool = False,
    ) -> None:
        self._paths, self._size, self._seed, self._holes = paths, size, seed, holes
        self._zoom, self._permute_colours = zoom, permute_colours

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        epoch, position = divmod(number, len(self._paths))
        order = np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._paths))
        rng = np.random.default_rng([self._seed, 1, number])
        enlarged = rng.uniform(1.0, self._zoom) if self._zoom > 1.0 else 1.0
        short_side = round(self._size * _SHORT_SIDE_PER_CROP * enlarged)
        rgb = read_picture(self._paths[order[position]]).rgb
        if max(rgb.shape[:2]) > MAX_RATIO * min(rgb.shape[:2]):
            rgb = within_ratio(rgb, rng.random())
        rgb = resize_short_side(rgb, short_side)
        top, left = (rng.integers(0, side - self._size + 1) for side in rgb.shape[:2])
        crop = rgb[top : top + self._size, left : left + self._size]
        if rng.random() < 0.5:
            crop = crop[:, ::-1]
        holes = hole_pair(self._size, rng, self._holes)
        if self._permute_colours and rng.random() < 0.5:
            crop = crop[..., rng.permutation(3)]
        return torch.from_numpy(np.ascontiguousarray(crop)), torch.from_numpy(holes)


def decode_batch(crops: Tensor, holes: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Crops uint8 `[N, S, S, 3]` and masks bool `[N, 2, S, S]` to float32 on the device: `[N, 3, S, S]` in [-1, 1] and
    `[N, 2, 1, S, S]` in {0, 1}. The arithmetic is that of the runtime's codec."""
    crops, holes = crops.to(device, non_blocking=True), holes.to(device, non_blocking=True)
    image = crops.permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return image.contiguous(memory_format=MEMORY_FORMAT), holes[:, :, None].float()


def held_out_pictures(paths: tuple[Path, ...], size: int) -> npt.NDArray[np.uint8]:
    """Central crops `[N, size, size, 3]` of photographs resized to short side `size`."""
    return np.stack([read_square(path, size) for path in paths])
