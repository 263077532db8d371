"""Training runs of a benchmark: each in a folder of its own, resumable, shared among processes.

A run that was interrupted goes on where its last checkpoint left it, and a finished one is not repeated. Several
processes share the work: each takes the next run that nobody holds. The length is in steps, so that the load of the
machine does not change the result.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from cisi_runtime.errors import CheckpointError, DataError
from cisi_runtime.files import atomic_file
from cisi_runtime.strict_json import read_json
from cisi_train.checkpoint import load_checkpoint
from cisi_train.data import PhotoFolder, open_folder
from cisi_train.evaluate import Method
from cisi_train.inpaint import inpaint_pixels
from cisi_train.lpips import Lpips
from cisi_train.processes import Processes
from cisi_train.recipe import Recipe
from cisi_train.train_options import TrainOptions
from cisi_train.trainer import Trainer
from cisi_train.vgg import VggFeatures

RESULT = "result.json"
_MODULES = ("vgg", "lpips")


@dataclasses.dataclass(frozen=True)
class Run:
    """A run on one thread of the CPU. The fields are those of `TrainOptions`; vgg: None for no perceptual loss, lpips:
    None for a recipe that does not select by it.

    Raises ValueError for a recipe that does, without it.
    """

    preset: str
    steps: int
    size: int
    batch: int
    lr: float
    seed: int
    l1_first: float
    save_every: int
    recipe: Recipe
    experiment: str = "full"
    zoom: float = 1.0
    permute_colours: bool = False
    bf16: bool = False
    vgg: VggFeatures | None = None
    lpips: Lpips | None = None

    def __post_init__(self) -> None:
        if self.recipe.select == "lpips" and self.lpips is None:
            raise ValueError("selection by LPIPS needs its weights")

    def train(self, folder: PhotoFolder, out: Path) -> bool:
        """Train in a folder of its own, or go on there. `best.pt` holds the weights that the recipe selects, of the
        averaged ones. False when Ctrl-C or SIGTERM ended it early.

        Raises DataError where the recipe selects by held-out pictures and the folder has too few for any.
        """
        if self.recipe.select != "last" and not folder.held_out:
            raise DataError(f"{folder.folder}: has {len(folder.training)} pictures, expected ten or more to select by")
        # `last.pt` is written after the others.
        last = out / "last.pt"
        if last.exists() and load_checkpoint(last).contract.provenance.steps == self.steps:
            return True  # it was killed between its last step and its result
        return self.trainer(folder, out).run()

    def trainer(self, folder: PhotoFolder, out: Path) -> Trainer:
        """What trains it. It writes nothing before it runs."""
        fields = [field.name for field in dataclasses.fields(self) if field.name not in _MODULES]
        options = TrainOptions(
            **{name: getattr(self, name) for name in fields},
            data=folder.folder,
            out=out,
            minutes=None,
            categories=(),
            recipe_name="ours",
            perceptual=self.vgg is not None,
            vgg=None,
            lpips=None,
            workers=0,
            threads=1,
            data_name=None,
            data_licence=None,
            compile=False,
            device="cpu",
            resume=(out / "last.pt").exists(),
            init=None,
        )
        return Trainer(options, folder, self.vgg, Processes("cpu"), self.lpips)


def checkpoint_method(path: Path) -> Method:
    """The network of a checkpoint, without what `cisi-run` does to its fills."""
    generator = load_checkpoint(path).generator()
    return lambda picture, hole_mask: inpaint_pixels(generator, picture, hole_mask, torch.device("cpu"))


def open_measured(folder: Path) -> PhotoFolder:
    """A folder of photographs to measure on. Raises DataError when one cannot be read: now, and not after hours of
    training."""
    photographs = open_folder(folder)
    if photographs.unreadable:
        raise DataError(f"{photographs.unreadable[0]}: expected photographs to measure on that can all be read")
    return photographs


def unfinished(folders: Iterable[Path]) -> Iterator[Path]:
    """Each folder without a result that no other process works on, held while it is the caller's turn."""
    for folder in folders:
        lock = FileLock(folder.with_name(f"{folder.name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        try:
            if not (folder / RESULT).exists():
                yield folder
        finally:
            lock.release()


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write it whole, or leave what was there."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n")


def check_budget(path: Path, now: dict[str, Any], *, table_only: bool) -> None:
    """Write what all runs of a folder have in common, or compare it with what is there: runs of two budgets make no
    table. Raises CheckpointError where they differ, and with `table_only` where there are no runs yet."""
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            if table_only:
                raise CheckpointError(f"{path}: no such file, so there are no runs to make a table of")
            write_json(path, now)
            return
        before = read_json(path, str(path), CheckpointError)
    changed = [f"{name} was {before.get(name)}, now {now[name]}" for name in now if before.get(name) != now[name]]
    if changed:
        raise CheckpointError(f"{path}: the runs here began otherwise: {', '.join(changed)}; choose another --out")
