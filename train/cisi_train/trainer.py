"""The paper's two-step iteration, in a loop that can be interrupted and resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Generator, Iterator
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cisi_runtime.errors import CheckpointError, CisiError, DataError
from cisi_runtime.storage.access import is_same
from cisi_train.batches import batches
from cisi_train.colour_statistics import ColourStatistics
from cisi_train.data import MEMORY_FORMAT, PhotoFolder, TrainingSamples, decode_batch
from cisi_train.lpips import Lpips
from cisi_train.memory_errors import memory_errors
from cisi_train.objective import EXPERIMENTS, Objective
from cisi_train.processes import Processes
from cisi_train.reporting import HeldOutPictures, Reporter, ended_in_first_checkpoint, write_sheet
from cisi_train.schedule import Schedule, lr_factor
from cisi_train.selection import Candidate
from cisi_train.train_options import TrainOptions
from cisi_train.training_state import TrainingState
from cisi_train.vgg import VggFeatures


class Trainer:
    """Runs the iterations and owns the output folder. It writes into `options.out`:

    `last.pt`: everything that `--resume` needs.
    `averaged.pt`: averaged weights as float16.
    `best.pt`: those of the best checkpoint on the held-out pictures with the centre hole (see `Candidate`). The newest
        ones when there are fewer than ten pictures, which leave none to hold out.
    `options.json`, `stats.jsonl`, `sheet.png`, TensorBoard events: see `Reporter`.

    notes: what the user should know before the run starts. Raises CheckpointError and DataError.
    """

    def __init__(
        self,
        options: TrainOptions,
        folder: PhotoFolder,
        vgg: VggFeatures | None,
        processes: Processes,
        lpips: Lpips | None = None,
    ) -> None:
        self.options, self.folder, self.processes = options, folder, processes
        self.device = processes.device
        if self.device.type == "cuda":
            # With it cuDNN rounds the factors of float32 convolutions to 10 bits of mantissa.
            torch.backends.cudnn.allow_tf32 = False
        if options.out.resolve().is_relative_to(options.data.resolve()):
            raise DataError(f"{options.out}: lies inside the folder of photographs, expected a place outside")
        self.state = TrainingState(options, self.device)
        if vgg is not None:
            vgg = vgg.to(self.device, memory_format=MEMORY_FORMAT)  # type: ignore[call-overload]
        self.notes = self._load_checkpoint()
        if options.recipe.select != "last" and not folder.held_out:
            fewer = "fewer than ten pictures, so none is held out"
            self.notes.append(f"{fewer}: best.pt holds the newest weights, whatever --select says")
        if options.recipe.style_losses and self.state.colours is None:
            self.state.colours = ColourStatistics.of_samples(self._samples())
        networks = self.state.generator, self.state.discriminator, vgg
        if not EXPERIMENTS[options.experiment].separation:
            # Nothing trains the style encoder there, and the fills would have styles that the decoder has never seen.
            for network in (self.state.generator, self.state.averaged):
                network.use_one_style()
        self.objective = Objective(*networks, EXPERIMENTS[options.experiment], options.recipe, self.state.colours)
        self.schedule = Schedule(options.steps, options.minutes, self.state.minutes_before)
        if options.compile:
            for part in self.state.generator.children():
                part.compile(dynamic=False)
        self.held_out = HeldOutPictures(folder, options.size, lpips)
        self._stop_signal: int | None = None
        self._interrupted = False

    @property
    def settings(self) -> dict[str, Any]:
        """What must stay the same over a resume for the run to be the same run."""
        options = self.options
        data = ("batch", "size", "seed", "zoom", "permute_colours")
        network = ("preset", "experiment", "l1_first", "perceptual", "bf16")
        return {name: getattr(options, name) for name in (*data, *network)} | {
            "recipe": options.recipe_name,
            **dataclasses.asdict(options.recipe),
            "processes": self.processes.count,
            "data_name": options.data_name,
            "data_licence": options.data_licence,
            "files_sha256": self.folder.files_sha256,
        }

    def run(self) -> bool:
        """Train to the end of the schedule. Returns False when SIGINT or SIGTERM ended it early, after a checkpoint."""
        self.schedule = Schedule(self.options.steps, self.options.minutes, self.state.minutes_before)
        with self._stop_signals(), memory_errors(), contextlib.ExitStack() as stack:
            reporter = None
            if self.processes.is_first:
                used = self.schedule.minutes_used
                reporter = stack.enter_context(Reporter(self.options, step=self.state.step, minutes_used=used))
            with contextlib.closing(self._batches()) as batches:
                self._loop(batches, reporter)
        return not self._interrupted

    def dry_run(self) -> dict[str, Any]:
        """One step on the first batch, with nothing written: resolved options, sizes, losses, seconds of that step."""
        with contextlib.closing(self._batches()) as batches, memory_errors():
            image, holes = decode_batch(*next(batches), self.device)
            start = time.perf_counter()
            losses = self.train_step(image, holes, progress=self.schedule.progress(self.state.step))
        return {
            "options": self.options.as_json(),
            "pictures": len(self.folder.training),
            "held_out": len(self.folder.held_out),
            "parameters": sum(parameter.numel() for parameter in self.state.generator.parameters()),
            "losses": losses,
            "seconds_of_first_step": time.perf_counter() - start,
        }

    def lr_at(self, step: int, progress: float) -> float:
        """Learning rate of a step. progress: fraction of the run that is over."""
        return self.options.lr * lr_factor(progress, step, self.options.recipe.rate_schedule)

    def train_step(self, image: Tensor, holes: Tensor, *, progress: float) -> dict[str, float]:
        """One iteration on images `[N, 3, S, S]` in [-1, 1] and holes `[N, 2, 1, S, S]`. Returns unweighted losses.

        progress: fraction of the run that is over. The self-content step updates SCE, SE and decoder; the
        inferred-content step updates ICE, SE and decoder with SCE fixed; then the discriminator is updated (paper,
        "Implementation Details"). Raises CisiError for losses that are not finite.
        """
        state, objective = self.state, self.objective
        l1_only = progress < self.options.l1_first
        optimisers = state.generator_optimisers
        for optimiser in (*optimisers, state.adversary_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = self.lr_at(state.step, progress)
        with self._autocast():
            features = None if l1_only else objective.features(image)
        losses: dict[str, Tensor] = {}
        if objective.experiment.separation:
            with self._autocast():
                losses |= objective.self_content(image, features, l1_only=l1_only)
                total = objective.total(losses)
            self._update(optimisers, total, objective.self_content_parameters())
        with self._autocast():
            inferred, judged = objective.inferred_content(image, holes, features, l1_only=l1_only)
            total = objective.total(inferred)
        self._update(optimisers, total, objective.inferred_content_parameters())
        losses |= inferred
        if not l1_only:
            with self._autocast():
                adversary = objective.adversary(image, holes, judged)
            parameters = list(state.discriminator.parameters())
            self._update([state.adversary_optimiser], objective.total(adversary), parameters)
            losses |= adversary
        state.average_weights()
        return self._finite_values(losses)

    def save(self, *, progress: float) -> Candidate:
        """Measure on the held-out pictures, write `last.pt`, `averaged.pt`, `sheet.png` and, if it is the best so far,
        `best.pt`.

        progress: fraction of the run that was over before the last step. Returns what was measured. An interrupted run
        writes no `best.pt`: an uninterrupted one would not have measured there.
        """
        state, options = self.state, self.options
        psnr, lpips, sheet = self.held_out.measure(state.averaged, self.device)
        write_sheet(options, sheet)
        candidate = Candidate(state.step, psnr, lpips, progress >= options.l1_first)
        is_best = candidate.is_better_than(state.best, options.recipe.select) or not self.folder.held_out
        if self._interrupted and (state.step == 0 or state.step % options.save_every != 0):
            is_best = False
        if is_best:
            state.best = candidate
        state.save(self.folder, self.settings, minutes_used=self.schedule.minutes_used, is_best=is_best)
        return candidate

    def _load_checkpoint(self) -> list[str]:
        options, last = self.options, self.options.out / "last.pt"
        if options.resume:
            return self.state.resume(last, self.settings)
        if last.exists():
            raise CheckpointError(f"{last} exists: add --resume to go on, or choose another --out")
        for kept in (options.out / "best.pt", options.out / "averaged.pt"):
            is_start = kept.exists() and options.init is not None and is_same(kept, options.init)
            if kept.exists() and (is_start or not ended_in_first_checkpoint(options.out)):
                raise CheckpointError(f"{kept} exists, of another run: choose another --out")
        if options.init is not None:
            self.state.start_from(options.init)
        return []

    def _loop(self, batches: Iterator[tuple[Tensor, Tensor]], reporter: Reporter | None) -> None:
        state, used = self.state, 0.0
        for image, holes in batches:
            progress = self.schedule.progress(state.step)
            stopping, progress = self.processes.agree(stop=self._stop_signal is not None, progress=progress)
            self._interrupted = stopping and progress < 1.0
            if stopping or progress >= 1.0:
                break
            losses = self.train_step(*decode_batch(image, holes, self.device), progress=progress)
            state.step, used = state.step + 1, progress
            if reporter is not None:
                lr = self.lr_at(state.step - 1, progress)
                reporter.step(state.step, lr, losses, self.schedule.minutes_used)
                if state.step % self.options.save_every == 0:
                    reporter.checkpoint(self.held_out.measured_on, self.save(progress=used), losses)
        if reporter is not None and (state.step % self.options.save_every or state.step == 0):
            reporter.checkpoint(self.held_out.measured_on, self.save(progress=used), {})

    def _update(self, optimisers: list[torch.optim.Optimizer], loss: Tensor, parameters: list[nn.Parameter]) -> None:
        # Gradients are set to None, not to zero: what the step does not train is then left alone.
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        self.processes.average_gradients(parameters)
        for optimiser in optimisers:
            optimiser.step()

    def _finite_values(self, losses: dict[str, Tensor]) -> dict[str, float]:
        # One transfer for all of them: each `.item()` would make a GPU wait.
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
        named = dict(zip(losses, values, strict=True))
        bad = {name: value for name, value in named.items() if not np.isfinite(value)}
        if bad:
            last = self.options.out / "last.pt"
            good = f"the last good checkpoint is {last}" if last.exists() else "there was no checkpoint yet"
            raise CisiError(f"step {self.state.step + 1}: losses are not finite: {bad}; {good}")
        return named

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16)

    def _samples(self) -> TrainingSamples:
        options = self.options
        return TrainingSamples(
            self.folder.training,
            options.size,
            options.seed,
            options.recipe.holes,
            zoom=options.zoom,
            permute_colours=options.permute_colours,
        )

    def _batches(self) -> Generator[tuple[Tensor, Tensor]]:
        options, count, rank = self.options, self.processes.count, self.processes.rank
        return batches(
            self._samples(),
            first=self.state.step * count + rank,
            stride=count,
            batch=options.batch,
            workers=options.workers,
            pin_memory=self.device.type == "cuda",
        )

    @contextlib.contextmanager
    def _stop_signals(self) -> Iterator[None]:
        """SIGINT and SIGTERM end the run after the current step and a checkpoint."""
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop_signal = number
