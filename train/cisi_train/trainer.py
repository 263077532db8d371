"""The paper's two-step iteration, with checkpoints from which it resumes as if it had never stopped."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract, Provenance
from cisi_runtime.errors import CheckpointError, CisiError, DataError
from cisi_runtime.files import make_folder, whole_file
from cisi_runtime.masks import centre_hole
from cisi_runtime.metrics import psnr_db
from cisi_runtime.pictures import Picture
from cisi_runtime.sheet import picture_sheet, show_hole
from cisi_runtime.writing import write_picture
from cisi_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cisi_train.data import PhotoFolder, TrainingSamples, decode_batch, held_out_pictures
from cisi_train.inpaint import inpaint_pixels
from cisi_train.network import Discriminator, Generator
from cisi_train.objective import EXPERIMENTS, Objective
from cisi_train.processes import Processes
from cisi_train.schedule import Schedule, lr_factor
from cisi_train.vgg import VggFeatures

# Of the averaged weights, after a warm-up: (1 + n) / (10 + n) at step n while that is less.
_EMA_DECAY = 0.999
_SHEET_ROWS = 6


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What `cisi-train` was asked to do; written to `options.json` in the output folder.

    steps or minutes is None; categories empty: all pictures; vgg None with `perceptual`: the published file.
    """

    data: Path
    out: Path
    preset: str
    steps: int | None
    minutes: float | None
    batch: int
    size: int
    lr: float
    seed: int
    holes: str
    permute_colours: bool
    categories: tuple[str, ...]
    experiment: str
    l1_first: float
    perceptual: bool
    vgg: Path | None
    save_every: int
    workers: int
    data_name: str | None
    data_licence: str | None
    bf16: bool
    compile: bool
    device: str
    resume: bool
    init: Path | None

    def as_json(self) -> dict[str, Any]:
        """The options by name, paths as text."""
        values = dataclasses.asdict(self)
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


class Trainer:
    """Owns the networks, the optimisers and the output folder. Writes into `options.out`:

    `last.pt` (resumable) and `best.pt` (averaged weights, as float16, with the highest held-out centre-hole PSNR; the
    newest where fewer than ten pictures leave none to hold out), `options.json`, `stats.jsonl` (one line a step),
    `sheet.png` (held-out pictures: original, input, result), TensorBoard events. Of several processes the first writes.
    """

    def __init__(
        self, options: TrainOptions, folder: PhotoFolder, vgg: VggFeatures | None, processes: Processes
    ) -> None:
        self.options, self.folder, self.processes = options, folder, processes
        self.device = self.processes.device
        if options.out.resolve().is_relative_to(options.data.resolve()):
            raise DataError(f"{options.out}: lies inside the folder of photographs, expected a place outside")
        torch.manual_seed(options.seed)
        architecture = PRESETS[options.preset]
        # Channels-last is what a GPU's convolutions want; on CPUs it measured slower.
        layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        self.generator = Generator(architecture).to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.discriminator = Discriminator(architecture).to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.generator).eval().requires_grad_(False)
        if vgg is not None:
            vgg = vgg.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        self.objective = Objective(self.generator, self.discriminator, vgg, EXPERIMENTS[options.experiment])
        # One optimiser for both steps: a parameter's moments belong to it, whichever step moves it.
        self.optimiser = torch.optim.Adam(self.generator.parameters(), lr=options.lr, betas=(0.5, 0.999))
        self.adversary_optimiser = torch.optim.Adam(self.discriminator.parameters(), lr=options.lr, betas=(0.5, 0.999))
        self.step = 0
        self.best_psnr_db = -float("inf")
        # What the weights had been trained on before this run.
        self._before: Provenance | None = None
        self._minutes_before = 0.0
        self._stop_signal: int | None = None
        self._interrupted = False
        # What the user should know before the run starts.
        self.notes: list[str] = []
        if options.resume:
            self._resume(load_checkpoint(options.out / "last.pt"))
        elif (options.out / "last.pt").exists():
            raise CheckpointError(f"{options.out / 'last.pt'} exists: add --resume to go on, or choose another --out")
        elif options.init is not None:
            self._initialise(options.init)
        self.schedule = Schedule(options.steps, options.minutes, self._minutes_before)
        if options.compile:
            for part in self.generator.children():
                part.compile(dynamic=False)
        shown = self.folder.held_out or self.folder.training[:1]
        self._shown = held_out_pictures(shown, options.size)

    @property
    def settings(self) -> dict[str, Any]:
        """What must stay the same over a resume for the run to be the same run."""
        options = self.options
        data = ("batch", "size", "seed", "holes", "permute_colours")
        network = ("preset", "experiment", "l1_first", "perceptual", "bf16")
        return {name: getattr(options, name) for name in (*data, *network)} | {
            "processes": self.processes.count,
            "data_name": options.data_name,
            "data_licence": options.data_licence,
            "data_sha256": self.folder.sha256,
        }

    def run(self) -> bool:
        """Train to the end of the schedule. Returns False when SIGINT or SIGTERM ended it early, after a checkpoint."""
        options, first = self.options, self.processes.is_first
        self.schedule = Schedule(options.steps, options.minutes, self._minutes_before)
        if first:
            make_folder(options.out)
            with whole_file(options.out / "options.json") as path:
                path.write_text(json.dumps(options.as_json(), indent=2) + "\n")
            self._drop_stats_after(self.step)
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        images = options.batch * self.processes.count
        try:
            with contextlib.ExitStack() as stack:
                total = None if options.steps is None else options.steps * images
                progress = stack.enter_context(
                    tqdm(total=total, initial=self.step * images, unit="image", mininterval=2.0, disable=not first)
                )
                if first:
                    stats = stack.enter_context((options.out / "stats.jsonl").open("a", buffering=1))
                    board = stack.enter_context(SummaryWriter(options.out / "tensorboard"))
                for image, holes in self._batches():
                    part = self.schedule.progress(self.step)
                    stopping, part = self.processes.agree(stop=self._stop_signal is not None, progress=part)
                    self._interrupted = stopping and part < 1.0
                    if stopping or part >= 1.0:
                        break
                    losses = self.train_step(*decode_batch(image, holes, self.device), progress=part)
                    self.step += 1
                    if not first:
                        continue
                    stats.write(json.dumps({"step": self.step, "lr": self.lr_at(self.step - 1, part), **losses}) + "\n")
                    progress.update(images)
                    self._show(progress, losses)
                    if self.step % options.save_every == 0:
                        self._save_and_tell(board, losses)
                if first and (self.step % options.save_every or self.step == 0):
                    self._save_and_tell(board, {})
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return not self._interrupted

    def dry_run(self) -> dict[str, Any]:
        """One step on the first batch, nothing written: resolved options, sizes, losses and seconds of that step."""
        image, holes = decode_batch(*next(self._batches()), self.device)
        start = time.perf_counter()
        losses = self.train_step(image, holes, progress=self.schedule.progress(self.step))
        return {
            "options": self.options.as_json(),
            "pictures": len(self.folder.training),
            "held_out": len(self.folder.held_out),
            "parameters": sum(parameter.numel() for parameter in self.generator.parameters()),
            "losses": losses,
            "seconds_of_first_step": time.perf_counter() - start,
        }

    def lr_at(self, step: int, progress: float) -> float:
        """Learning rate of a step: constant, then over the last part of the run straight down to zero."""
        return self.options.lr * lr_factor(progress, step)

    def train_step(self, image: Tensor, holes: Tensor, *, progress: float) -> dict[str, float]:
        """One iteration: image `[N, 3, S, S]` in [-1, 1], holes `[N, 2, 1, S, S]`; returns the losses, unweighted.

        progress: part of the run that is over. The self-content step updates SCE, SE and decoder; the
        inferred-content step updates ICE, SE and decoder with SCE fixed; then the discriminator is updated (paper,
        "Implementation Details").
        """
        for group in (*self.optimiser.param_groups, *self.adversary_optimiser.param_groups):
            group["lr"] = self.lr_at(self.step, progress)
        objective, l1_only = self.objective, progress < self.options.l1_first
        with self._autocast():
            features = None if l1_only else objective.features(image)
        losses: dict[str, Tensor] = {}
        if objective.experiment.separation:
            with self._autocast():
                losses |= objective.self_content(image, features, l1_only=l1_only)
                total = objective.total(losses)
            self._update(self.optimiser, total, objective.self_content_parameters())
        with self._autocast():
            inferred, completed = objective.inferred_content(image, holes, features, l1_only=l1_only)
            total = objective.total(inferred)
        self._update(self.optimiser, total, objective.inferred_content_parameters())
        losses |= inferred
        if not l1_only:
            with self._autocast():
                adversary = objective.adversary(image, holes, completed)
            self._update(self.adversary_optimiser, objective.total(adversary), list(self.discriminator.parameters()))
            losses |= adversary
        self._average_weights()
        # One transfer for all of them: each `.item()` would make a GPU wait.
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
        named = dict(zip(losses, values, strict=True))
        bad = {name: value for name, value in named.items() if not np.isfinite(value)}
        if bad:
            kept = self.options.out / "last.pt"
            good = f"the last good checkpoint is {kept}" if kept.exists() else "there was no checkpoint yet"
            raise CisiError(f"step {self.step + 1}: losses are not finite: {bad}; {good}")
        return named

    def _update(self, optimiser: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter]) -> None:
        # Gradients go to None, not to zero: Adam then leaves alone what the step does not train.
        optimiser.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        self.processes.average_gradients(parameters)
        optimiser.step()

    def _average_weights(self) -> None:
        decay = min(_EMA_DECAY, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.generator.parameters()), 1.0 - decay)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        options, count, rank = self.options, self.processes.count, self.processes.rank
        samples = TrainingSamples(
            self.folder.training, options.size, options.seed, options.holes, permute_colours=options.permute_colours
        )
        # A batch sampler of sample numbers: order, crops and holes follow from them (see TrainingSamples).
        numbers = _batch_numbers(self.step * count + rank, count, options.batch)
        return iter(
            DataLoader(
                samples,
                batch_sampler=numbers,  # type: ignore[arg-type]
                num_workers=options.workers,
                pin_memory=self.device.type == "cuda",
                worker_init_fn=_ignore_stop_signals,
            )
        )

    def _show(self, progress: Any, losses: dict[str, float]) -> None:
        shown = f"L1={losses['inpainted_l1']:.4f}"
        if self.options.minutes is not None:
            shown += f", {max(0.0, self.options.minutes - self.schedule.minutes_used):.1f} minutes left"
        progress.set_postfix_str(shown, refresh=False)

    def _save_and_tell(self, board: SummaryWriter, losses: dict[str, float]) -> None:
        psnr = self.save()
        tqdm.write(f"step {self.step}: {self.measured_on} PSNR {psnr:.2f} dB", file=sys.stderr)
        for name, value in {**losses, "held_out_psnr_db": psnr}.items():
            board.add_scalar(name, value, self.step)

    @property
    def measured_on(self) -> str:
        """What the PSNR of a checkpoint is measured on."""
        return "held-out centre-hole" if self.folder.held_out else "centre-hole (of a training picture)"

    def save(self) -> float:
        """Measure on the held-out pictures, write `last.pt`, `sheet.png` and, if it is the best so far, `best.pt`.

        Returns the mean centre-hole PSNR in dB. An interrupted run writes no `best.pt`: an uninterrupted one would not
        have measured there.
        """
        psnr, sheet = self._held_out()
        write_picture(self.options.out / "sheet.png", Picture(sheet))
        is_best = psnr > self.best_psnr_db or not self.folder.held_out
        if self._interrupted and self.step % self.options.save_every != 0:
            is_best = False
        if is_best:
            self.best_psnr_db = psnr
        contract = self._contract()
        training = {
            "step": self.step,
            "before": None if self._before is None else dataclasses.asdict(self._before),
            "best_psnr_db": self.best_psnr_db,
            "minutes": self.schedule.minutes_used if self.options.minutes is not None else 0.0,
            "averaged": self.averaged.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "adversary_optimiser": self.adversary_optimiser.state_dict(),
        }
        options = self.options
        configuration = self.settings | {"steps": options.steps, "minutes": options.minutes, "lr": options.lr}
        if is_best:
            best = self.averaged.state_dict()
            save_checkpoint(options.out / "best.pt", contract, best, configuration=configuration, half=True)
        weights = self.generator.state_dict()
        save_checkpoint(options.out / "last.pt", contract, weights, configuration=configuration, training=training)
        return psnr

    def _held_out(self) -> tuple[float, npt.NDArray[np.uint8]]:
        hole = centre_hole(self.options.size, self.options.size)
        psnrs: list[float] = []
        rows: list[list[npt.NDArray[np.uint8]]] = []
        for picture in self._shown:
            completed = inpaint_pixels(self.averaged, picture, hole, self.device)
            psnrs.append(psnr_db(completed[hole].astype(np.float64) - picture[hole], 255.0))
            if len(rows) < _SHEET_ROWS:
                rows.append([picture, show_hole(picture, hole), completed])
        return float(np.mean(psnrs)), picture_sheet(rows)

    def _contract(self) -> Contract:
        options, before = self.options, self._before
        provenance = Provenance(
            data=options.data_name or options.data.resolve().name,
            data_licence=options.data_licence or "not stated",
            data_sha256=self.folder.sha256,
            images=len(self.folder.training),
            steps=self.step,
            preset=options.preset,
        )
        return Contract(PRESETS[options.preset], before.then(provenance) if before is not None else provenance)

    def _initialise(self, path: Path) -> None:
        checkpoint = load_checkpoint(path)
        self._check_architecture(path, checkpoint)
        self.generator.load_state_dict(checkpoint.weights)
        self.averaged.load_state_dict(checkpoint.weights)
        self._before = checkpoint.contract.provenance

    def _resume(self, checkpoint: Checkpoint) -> None:
        path, training = self.options.out / "last.pt", checkpoint.training
        if training is None:
            raise CheckpointError(f"{path}: holds weights only, expected a last.pt; start from it with --init")
        configuration = checkpoint.configuration
        changed = [name for name, value in self.settings.items() if configuration.get(name) != value]
        if changed:
            before = {name: configuration.get(name) for name in changed}
            raise CheckpointError(f"{path}: --resume needs the settings of the run, which were {before}")
        if self.options.steps is not None and training["step"] >= self.options.steps:
            raise CheckpointError(f"{path}: is at step {training['step']} already, expected a larger --steps")
        if self.options.minutes is not None and training["minutes"] >= self.options.minutes:
            raise CheckpointError(f"{path}: has used {training['minutes']:.1f} minutes, expected more --minutes")
        for name in ("steps", "minutes", "lr"):
            value = getattr(self.options, name)
            if configuration[name] != value:
                self.notes.append(f"--{name} was {configuration[name]}, now {value}: from here on it is another run")
        self._check_architecture(path, checkpoint)
        self.generator.load_state_dict(checkpoint.weights)
        for name in ("averaged", "discriminator", "optimiser", "adversary_optimiser"):
            getattr(self, name).load_state_dict(training[name])
        self._minutes_before = training["minutes"]
        self.step, self.best_psnr_db = training["step"], training["best_psnr_db"]
        self._before = None if training["before"] is None else Provenance.from_dict(training["before"])

    def _check_architecture(self, path: Path, checkpoint: Checkpoint) -> None:
        if checkpoint.contract.architecture != PRESETS[self.options.preset]:
            raise CheckpointError(
                f"{path}: is of preset {checkpoint.contract.provenance.preset}, not --preset {self.options.preset}"
            )

    def _drop_stats_after(self, step: int) -> None:
        """A killed run may have written lines past its last checkpoint: they will be written again."""
        path = self.options.out / "stats.jsonl"
        if path.exists():
            kept = path.read_text().splitlines()[:step]
            with whole_file(path) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop_signal = number


def _batch_numbers(first: int, stride: int, batch: int) -> Iterator[range]:
    """Sample numbers of this process's batches without end: batch `first`, then every `stride`-th."""
    while True:
        yield range(first * batch, (first + 1) * batch)
        first += stride


def _ignore_stop_signals(_worker: int) -> None:
    """Ctrl-C reaches every process of the group; the trainer alone ends the run, after the step and a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
