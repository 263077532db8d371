"""Reports of a training run: statistics, TensorBoard, progress, held-out quality, a picture sheet."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cisi_runtime.console import LOUDNESS, tell, tell_more
from cisi_runtime.files import atomic_file, make_folder
from cisi_runtime.metrics import agreement_db
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.sheet import picture_sheet, show_hole
from cisi_runtime.pictures.writing import write_picture
from cisi_train.data import PhotoFolder, held_out_pictures
from cisi_train.inpaint import inpaint_pixels
from cisi_train.lpips import Lpips
from cisi_train.network import Generator
from cisi_train.run_length import RunLength
from cisi_train.selection import Candidate
from cisi_train.train_options import TrainOptions

_SHEET_ROWS = 6


class HeldOutPictures:
    """Pictures that training does not see, with the centre hole. Without any, the first training picture stands in."""

    def __init__(self, folder: PhotoFolder, size: int, lpips: Lpips | None = None) -> None:
        """lpips: the metric, where checkpoints are selected by it."""
        self._lpips = lpips
        self.measured_on = "held-out centre-hole" if folder.held_out else "centre-hole (of a training picture)"
        self._pictures = held_out_pictures(folder.held_out or folder.training[:1], size)
        self._hole = centre_hole(size, size)

    def measure(self, generator: Generator, device: torch.device) -> tuple[float, float | None, npt.NDArray[np.uint8]]:
        """Mean PSNR over the hole in dB, mean LPIPS, and a sheet with original, input and result of the first six
        pictures."""
        hole = self._hole
        psnrs: list[float] = []
        distances: list[float] = []
        rows: list[list[npt.NDArray[np.uint8]]] = []
        for picture in self._pictures:
            completed = inpaint_pixels(generator, picture, hole, device)
            psnrs.append(agreement_db(completed, picture, hole))
            if self._lpips is not None:
                distances.append(self._lpips.of_pixels(completed, picture))
            if len(rows) < _SHEET_ROWS:
                rows.append([picture, show_hole(picture, hole), completed])
        lpips = float(np.mean(distances)) if distances else None
        return float(np.mean(psnrs)), lpips, picture_sheet(rows, [["original", "hole", "network"]] * len(rows))


class Reporter:
    """Writes the reports of a run into its output folder; a context manager. With several processes, of the first only.

    `options.json`; `stats.jsonl`, a line for each step; `sheet.png`; TensorBoard events; progress on stderr.
    """

    def __init__(self, options: TrainOptions, *, step: int, minutes_used: float) -> None:
        """step, minutes_used: iterations done and minutes used before."""
        self._options = options
        make_folder(options.out)
        with atomic_file(options.out / "options.json") as path:
            path.write_text(json.dumps(options.as_json(), indent=2) + "\n")
        self._drop_stats_after(step)
        self._stack = contextlib.ExitStack()
        self._length = RunLength(options)
        self._progress = self._stack.enter_context(_bar(options, step, minutes_used))
        self._stats = self._stack.enter_context((options.out / "stats.jsonl").open("a", buffering=1))
        self._board = self._stack.enter_context(SummaryWriter(options.out / "tensorboard"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def step(self, number: int, lr: float, losses: dict[str, float], minutes_used: float) -> None:
        """A step is done: its line of statistics and the progress bar."""
        self._stats.write(json.dumps({"step": number, "lr": lr, **losses}) + "\n")
        loss = f"image loss {losses[f'inpainted_{self._options.recipe.image_loss}']:.4f}"
        if self._options.minutes is None:
            self._progress.set_postfix_str(loss, refresh=False)
            self._progress.update(1)
        else:
            self._progress.set_postfix_str(f"step {number}, {loss}", refresh=False)
            self._progress.update(min(minutes_used, self._options.minutes) - self._progress.n)
        line = self._length.after_step(number, minutes_used)
        if line is not None:
            tell(line)

    def checkpoint(self, measured_on: str, candidate: Candidate, losses: dict[str, float]) -> None:
        """A checkpoint was written: its quality on stderr, and everything for TensorBoard."""
        tell(f"step {candidate.step}: {measured_on} {candidate}")
        if losses:
            tell_more("  ".join(f"{name} {value:.4g}" for name, value in losses.items()))
        measured = {"held_out_psnr_db": candidate.psnr_db}
        if candidate.lpips is not None:
            measured["held_out_lpips"] = candidate.lpips
        for name, value in {**losses, **measured}.items():
            self._board.add_scalar(name, value, candidate.step)

    def _drop_stats_after(self, step: int) -> None:
        """A killed run may have written lines past its last checkpoint. Those steps are done again."""
        path = self._options.out / "stats.jsonl"
        if path.exists():
            lines = path.read_text().splitlines()[:step]
            with atomic_file(path) as temporary:
                temporary.write_text("".join(line + "\n" for line in lines))


def ended_in_first_checkpoint(out: Path) -> bool:
    """Whether the run of a folder was killed while it wrote its first checkpoint, so that its weights may be replaced.
    False where the folder is of no run, or nobody can tell."""
    try:
        written = json.loads((out / "options.json").read_text())
        steps = len((out / "stats.jsonl").read_text().splitlines())
        return bool(steps <= written["save_every"] and steps != written["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _bar(options: TrainOptions, step: int, minutes_used: float) -> tqdm[NoReturn]:
    """It counts what the option counts, steps or minutes. Only on a terminal: elsewhere it would be a line without
    end."""
    if options.minutes is None:
        return tqdm(total=options.steps, initial=step, unit=" step", mininterval=2.0, disable=LOUDNESS.quiet or None)
    return tqdm(
        total=options.minutes,
        initial=minutes_used,
        mininterval=2.0,
        disable=LOUDNESS.quiet or None,
        bar_format="{l_bar}{bar}| {n:.1f}/{total:g} min{postfix}",
    )


def write_sheet(options: TrainOptions, sheet: npt.NDArray[np.uint8]) -> None:
    """Write `sheet.png`. Raises OutputError."""
    write_picture(options.out / "sheet.png", Picture(sheet))
