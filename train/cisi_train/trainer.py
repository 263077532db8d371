"""The paper's two-step iteration, with checkpoints from which it resumes as if it had never stopped."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract, Provenance
from cisi_runtime.errors import CheckpointError, CisiError, DataError
from cisi_runtime.files import make_folder, whole_file
from cisi_runtime.masks import centre_hole
from cisi_runtime.metrics import psnr_db
from cisi_runtime.pictures import Picture, write_picture
from cisi_runtime.sheet import picture_sheet, show_hole
from cisi_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cisi_train.data import PhotoFolder, TrainingSamples, held_out_pictures
from cisi_train.inpaint import inpaint_pixels
from cisi_train.losses import latent_l1, weighted_l1
from cisi_train.network import Generator, corrupt

# Weights of the losses: image L1 10, content 1, style 0.1. With style 1 the spread of the codes over a batch halved
# within 200 steps, and with it the colours that only the style can carry past the instance norms.
_IMAGE, _CONTENT, _STYLE = 10.0, 1.0, 0.1
# The last part of the run, over which the learning rate falls to zero in a straight line.
_ANNEALED_PART = 0.3
_SHEET_ROWS = 6


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """What `cisi-train` was asked to do; written to `options.json` in the output folder."""

    data: Path
    out: Path
    preset: str
    steps: int
    batch: int
    size: int
    lr: float
    seed: int
    save_every: int
    workers: int
    data_name: str | None
    data_licence: str | None
    bf16: bool
    device: str
    resume: bool
    init: Path | None


class Trainer:
    """Owns the network, the optimiser and the output folder. Writes into `options.out`:

    `last.pt` (resumable) and `best.pt` (float16 weights with the highest held-out centre-hole PSNR; the newest where
    fewer than ten pictures leave none to hold out), `options.json`, `stats.jsonl` (one line a step), `sheet.png`
    (held-out pictures: original, input, result), TensorBoard events.
    """

    def __init__(self, options: TrainOptions, folder: PhotoFolder) -> None:
        self.options = options
        self.folder = folder
        self.device = torch.device(options.device)
        if options.out.resolve().is_relative_to(options.data.resolve()):
            raise DataError(f"{options.out}: lies inside the folder of photographs, expected a place outside")
        torch.manual_seed(options.seed)
        self.generator = Generator(PRESETS[options.preset]).to(self.device)
        self.optimiser = torch.optim.Adam(self.generator.parameters(), lr=options.lr, betas=(0.5, 0.999))
        self.step = 0
        self.best_psnr_db = -float("inf")
        # What the weights had been trained on before this run.
        self._before: Provenance | None = None
        self._stop_signal: int | None = None
        # What the user should know before the run starts.
        self.notes: list[str] = []
        if options.resume:
            self._resume(load_checkpoint(options.out / "last.pt"))
        elif (options.out / "last.pt").exists():
            raise CheckpointError(f"{options.out / 'last.pt'} exists: add --resume to go on, or choose another --out")
        elif options.init is not None:
            self._initialise(options.init)
        shown = self.folder.held_out or self.folder.training[:1]
        self._shown = held_out_pictures(shown, options.size)

    @property
    def settings(self) -> dict[str, Any]:
        """What must stay the same over a resume for the run to be the same run."""
        options = self.options
        return {
            "preset": options.preset,
            "batch": options.batch,
            "size": options.size,
            "seed": options.seed,
            "bf16": options.bf16,
            "data_name": options.data_name,
            "data_licence": options.data_licence,
            "data_sha256": self.folder.sha256,
        }

    def run(self) -> bool:
        """Train up to `options.steps`. Returns False when SIGINT or SIGTERM ended it early, after a checkpoint."""
        options = self.options
        make_folder(options.out)
        with whole_file(options.out / "options.json") as path:
            path.write_text(json.dumps(dataclasses.asdict(options), indent=2, default=str) + "\n")
        self._drop_stats_after(self.step)
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with (
                (options.out / "stats.jsonl").open("a", buffering=1) as stats,
                SummaryWriter(options.out / "tensorboard") as board,
                tqdm(total=options.steps, initial=self.step, unit="step", mininterval=2.0) as progress,
            ):
                for image, holes in self._batches():
                    losses = self.train_step(image.to(self.device), holes.to(self.device))
                    self.step += 1
                    stats.write(json.dumps({"step": self.step, "lr": self.lr_at(self.step - 1), **losses}) + "\n")
                    progress.update()
                    progress.set_postfix(L1=f"{losses['inpainted_l1']:.4f}", refresh=False)
                    stopping = self._stop_signal is not None or self.step == options.steps
                    if stopping or self.step % options.save_every == 0:
                        losses["held_out_psnr_db"] = self.save()
                        psnr = losses["held_out_psnr_db"]
                        tqdm.write(f"step {self.step}: {self.measured_on} PSNR {psnr:.2f} dB", file=sys.stderr)
                        for name, value in losses.items():
                            board.add_scalar(name, value, self.step)
                    if stopping:
                        break
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return self._stop_signal is None

    def lr_at(self, step: int) -> float:
        """Learning rate of a step: constant, then over the last part of the run straight down to zero."""
        left = (self.options.steps - step) / (_ANNEALED_PART * self.options.steps)
        return self.options.lr * min(1.0, left)

    def train_step(self, image: Tensor, holes: Tensor) -> dict[str, float]:
        """One iteration: image `[N, 3, S, S]` in [-1, 1], holes `[N, 2, 1, S, S]`; returns the losses.

        The self-content step updates SCE, SE and decoder; the inferred-content step updates ICE, SE and decoder by a
        pair of corruptions of each image, with SCE's codes as fixed guidance (paper, "Implementation Details").
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.lr_at(self.step)
        losses = self._self_content_step(image) | self._inferred_content_step(image, holes)
        if not np.isfinite(list(losses.values())).all():
            raise CisiError(f"step {self.step + 1}: a loss is not finite: {losses}; the last checkpoint is kept")
        return losses

    def _self_content_step(self, image: Tensor) -> dict[str, float]:
        complete = corrupt(image, torch.zeros_like(image[:, :1]))
        with self._autocast():
            generated = self.generator.decoder(self.generator.self_content(image), self.generator.style(complete))
            loss = (generated - image).abs().mean()
        self._update(_IMAGE * loss)
        return {"reconstructed_l1": loss.item()}

    def _inferred_content_step(self, image: Tensor, holes: Tensor) -> dict[str, float]:
        network = self.generator
        pair, mask = torch.cat([image, image]), torch.cat([holes[:, 0], holes[:, 1]])
        corrupted = corrupt(pair, mask)
        with self._autocast():
            with torch.no_grad():
                true_content = network.self_content(image).repeat(2, 1, 1, 1)
            true_style = network.style(corrupt(image, torch.zeros_like(image[:, :1]))).repeat(2, 1)
            content, style = network.inferred_content(corrupted), network.style(corrupted)
            generated = network.decoder(content, style)
            image_loss = weighted_l1(generated, pair, mask)
            content_loss = latent_l1(content, true_content)
            style_loss = latent_l1(style, true_style)
        self._update(_IMAGE * image_loss + _CONTENT * content_loss + _STYLE * style_loss)
        return {
            "inpainted_l1": image_loss.item(),
            "content_l1": content_loss.item(),
            "style_l1": style_loss.item(),
            # Spread of the codes over the batch: an L1 loss between codes can collapse them to a constant.
            "style_spread": true_style.float().std(dim=0, correction=0).mean().item(),
        }

    def _update(self, loss: Tensor) -> None:
        # Gradients go to None, not to zero: Adam then leaves alone what the step does not train.
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.bf16)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        batch = self.options.batch
        numbers = (range(step * batch, (step + 1) * batch) for step in range(self.step, self.options.steps))
        samples = TrainingSamples(self.folder.training, self.options.size, self.options.seed)
        # A batch sampler of sample numbers: order, crops and holes follow from them (see TrainingSamples).
        return iter(
            DataLoader(
                samples,
                batch_sampler=numbers,  # type: ignore[arg-type]
                num_workers=self.options.workers,
                worker_init_fn=_ignore_stop_signals,
            )
        )

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
        if self._stop_signal is not None and self.step % self.options.save_every != 0:
            is_best = False
        if is_best:
            self.best_psnr_db = psnr
        contract = self._contract()
        training = {
            "step": self.step,
            "before": None if self._before is None else dataclasses.asdict(self._before),
            "best_psnr_db": self.best_psnr_db,
            "optimiser": self.optimiser.state_dict(),
        }
        configuration = self.settings | {"steps": self.options.steps, "lr": self.options.lr}
        weights = self.generator.state_dict()
        if is_best:
            save_checkpoint(self.options.out / "best.pt", contract, weights, configuration=configuration, half=True)
        save_checkpoint(self.options.out / "last.pt", contract, weights, configuration=configuration, training=training)
        return psnr

    def _held_out(self) -> tuple[float, npt.NDArray[np.uint8]]:
        hole = centre_hole(self.options.size, self.options.size)
        psnrs: list[float] = []
        rows: list[list[npt.NDArray[np.uint8]]] = []
        self.generator.eval()
        for picture in self._shown:
            completed = inpaint_pixels(self.generator, picture, hole, self.device)
            psnrs.append(psnr_db(completed[hole].astype(np.float64) - picture[hole], 255.0))
            if len(rows) < _SHEET_ROWS:
                rows.append([picture, show_hole(picture, hole), completed])
        self.generator.train()
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
        if training["step"] >= self.options.steps:
            raise CheckpointError(f"{path}: is at step {training['step']} already, expected a larger --steps")
        for name, value in (("steps", self.options.steps), ("lr", self.options.lr)):
            if configuration[name] != value:
                self.notes.append(f"--{name} was {configuration[name]}, now {value}: from here on it is another run")
        self._check_architecture(path, checkpoint)
        self.generator.load_state_dict(checkpoint.weights)
        self.optimiser.load_state_dict(training["optimiser"])
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


def _ignore_stop_signals(_worker: int) -> None:
    """Ctrl-C reaches every process of the group; the trainer alone ends the run, after the step and a checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
