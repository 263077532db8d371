"""Everything that a training run changes, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract, Provenance
from cisi_runtime.errors import CheckpointError
from cisi_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cisi_train.colour_statistics import ColourStatistics
from cisi_train.data import MEMORY_FORMAT, PhotoFolder
from cisi_train.network import Discriminator, Generator
from cisi_train.optimisers import Muon, adam, hidden_weights
from cisi_train.recipe import BEFORE_CHOICE
from cisi_train.saved_training import SavedCounters, check_network, check_optimiser, saved_counters
from cisi_train.selection import Candidate
from cisi_train.train_options import TrainOptions

# Of the averaged weights, once warmed up: (1 + n) / (10 + n) at step n while that is less.
_EMA_DECAY = 0.999


class TrainingState:
    """Networks, optimisers and counters of a run.

    generator, discriminator: the networks in training.
    averaged: exponential moving average of the generator's weights, in evaluation mode.
    optimiser, adversary_optimiser: Adam for generator and discriminator.
    hidden_optimiser: Muon for the generator's hidden weights, which `optimiser` then has not; None by recipe.
    step: iterations done.
    minutes_before: minutes that earlier parts of a resumed run have used.
    best: the checkpoint that is `best.pt`; None before there is one.
    colours: of the training data; None without style losses.
    provenance_before: what the weights had been trained on before this run.
    """

    def __init__(self, options: TrainOptions, device: torch.device) -> None:
        self.options = options
        torch.manual_seed(options.seed)
        architecture = PRESETS[options.preset]
        generator, discriminator = Generator(architecture), Discriminator(architecture)
        self.generator = generator.to(device, memory_format=MEMORY_FORMAT)  # type: ignore[call-overload]
        self.discriminator = discriminator.to(device, memory_format=MEMORY_FORMAT)  # type: ignore[call-overload]
        self.averaged = copy.deepcopy(self.generator).eval().requires_grad_(False)
        # One optimiser for both steps: a parameter's moments belong to it, whichever step updates it.
        hidden = hidden_weights(self.generator) if options.recipe.optimiser == "muon" else []
        self.hidden_optimiser = Muon(hidden, options.lr, bf16=options.bf16) if hidden else None
        numbers = {id(parameter) for parameter in hidden}
        others = [parameter for parameter in self.generator.parameters() if id(parameter) not in numbers]
        self.optimiser = adam(others, options.lr)
        self.adversary_optimiser = adam(list(self.discriminator.parameters()), options.lr)
        self.step = 0
        self.minutes_before = 0.0
        self.best: Candidate | None = None
        self.colours: ColourStatistics | None = None
        self.provenance_before: Provenance | None = None

    @property
    def generator_optimisers(self) -> list[torch.optim.Optimizer]:
        """Those of the generator, each with parameters of its own."""
        return [self.optimiser] if self.hidden_optimiser is None else [self.optimiser, self.hidden_optimiser]

    @property
    def training_parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        """What `last.pt` holds beside the weights, by name."""
        parts: dict[str, nn.Module | torch.optim.Optimizer] = {
            "averaged": self.averaged,
            "discriminator": self.discriminator,
            "optimiser": self.optimiser,
            "adversary_optimiser": self.adversary_optimiser,
        }
        return parts if self.hidden_optimiser is None else parts | {"hidden_optimiser": self.hidden_optimiser}

    def average_weights(self) -> None:
        """Move the averaged weights towards the generator's, after a step; all the way where there is no average."""
        decay = min(_EMA_DECAY, (1 + self.step) / (10 + self.step)) if self.options.recipe.average else 0.0
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.generator.parameters()), 1.0 - decay)

    def start_from(self, path: Path) -> None:
        """Take the weights of a checkpoint, and count their training. Raises CheckpointError."""
        checkpoint = load_checkpoint(path)
        self._check_architecture(path, checkpoint)
        self.generator.load_state_dict(checkpoint.weights)
        self.averaged.load_state_dict(checkpoint.weights)
        self.provenance_before = checkpoint.contract.provenance

    def resume(self, path: Path, settings: dict[str, Any]) -> list[str]:
        """Continue the run of a `last.pt` whose settings must be these.

        Returns what the user should know: options that have changed. Raises CheckpointError when it would be another
        run, or when the run is over.
        """
        checkpoint = load_checkpoint(path)
        training = checkpoint.training
        if training is None:
            raise CheckpointError(f"{path}: holds weights only, expected a last.pt; start from it with --init")
        counters = saved_counters(path, training)
        notes = self._check_resumable(path, checkpoint.configuration, counters, settings)
        self._check_architecture(path, checkpoint)
        parts = self.training_parts
        for name, part in parts.items():
            if isinstance(part, torch.optim.Optimizer):
                check_optimiser(path, name, part, training.get(name))
            else:
                check_network(path, name, part, training.get(name))
        self.generator.load_state_dict(checkpoint.weights)
        for name, part in parts.items():
            part.load_state_dict(training[name])
        self.minutes_before, self.step = counters.minutes, counters.step
        self.best, self.colours, self.provenance_before = counters.best, counters.colours, counters.before
        return notes

    def save(self, folder: PhotoFolder, settings: dict[str, Any], *, minutes_used: float, is_best: bool) -> None:
        """Write `last.pt`, which can be resumed, `averaged.pt`, and the same as `best.pt` if it is the best.

        Raises CheckpointError, writing nothing, where something is not finite; OutputError.
        """
        options = self.options
        bad = [name for name, part in self._parts().items() if not _is_finite(part.state_dict())]
        if bad:
            raise CheckpointError(
                f"{options.out}: step {self.step} is not written, {', '.join(bad)} hold values that are not finite; "
                "what was written before stays"
            )
        contract = self._contract(folder)
        configuration = settings | {"steps": options.steps, "minutes": options.minutes, "lr": options.lr}
        training = {
            "step": self.step,
            "before": None if self.provenance_before is None else dataclasses.asdict(self.provenance_before),
            "best": None if self.best is None else dataclasses.asdict(self.best),
            "colours": None if self.colours is None else dataclasses.asdict(self.colours),
            "minutes": minutes_used if options.minutes is not None else 0.0,
        }
        training |= {name: part.state_dict() for name, part in self.training_parts.items()}
        averaged = self.averaged.state_dict()
        for name in ("averaged.pt", "best.pt") if is_best else ("averaged.pt",):
            save_checkpoint(options.out / name, contract, averaged, configuration=configuration, as_float16=True)
        weights = self.generator.state_dict()
        save_checkpoint(options.out / "last.pt", contract, weights, configuration=configuration, training=training)

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {"generator": self.generator, **self.training_parts}

    def _contract(self, folder: PhotoFolder) -> Contract:
        options, before = self.options, self.provenance_before
        # Unnamed data that the weights have seen before has the name that it had then.
        known = before if before is not None and before.data_sha256 == folder.names_sha256 else None
        provenance = Provenance(
            data=options.data_name or (known.last_data if known else options.data.resolve().name),
            data_licence=options.data_licence or (known.last_licence if known else "not stated"),
            data_sha256=folder.names_sha256,
            images=len(folder.training),
            steps=self.step,
            preset=options.preset,
        )
        return Contract(PRESETS[options.preset], before.then(provenance) if before is not None else provenance)

    def _check_resumable(
        self, path: Path, configuration: dict[str, Any], counters: SavedCounters, settings: dict[str, Any]
    ) -> list[str]:
        options = self.options
        # What an older version meant: it had no such settings.
        older = BEFORE_CHOICE | {"zoom": 1.0, "files_sha256": configuration.get("data_sha256")}
        configuration = older | configuration
        changed = [name for name, value in settings.items() if configuration.get(name) != value]
        if changed:
            differences = [_difference(name, configuration.get(name), settings[name]) for name in changed]
            raise CheckpointError(
                f"{path}: is of a run that began otherwise: {'; '.join(differences)}; another run can start from its "
                f"weights: --init {path}"
            )
        if options.steps is not None and counters.step >= options.steps:
            raise CheckpointError(f"{path}: is at step {counters.step} already, expected a larger --steps")
        if options.minutes is not None and counters.minutes >= options.minutes:
            raise CheckpointError(f"{path}: has used {counters.minutes:.1f} minutes, expected more --minutes")
        return [
            f"--{name} was {_shown(before)}, now {_shown(now)}: what follows is not what a run with it from the start "
            "would have done"
            for name in ("steps", "minutes", "lr")
            if (before := configuration.get(name)) != (now := getattr(options, name))
        ]

    def _check_architecture(self, path: Path, checkpoint: Checkpoint) -> None:
        preset = self.options.preset
        if checkpoint.contract.architecture != PRESETS[preset]:
            raise CheckpointError(
                f"{path}: is of preset {checkpoint.contract.provenance.preset}, not --preset {preset}"
            )


def _difference(setting: str, before: Any, now: Any) -> str:
    """In words, by the option that sets it."""
    if setting == "files_sha256":
        return "--data has other photographs (names, sizes or number) than the run had"
    if setting == "processes":
        return f"the run had {before} processes, now there are {now}"
    if setting == "perceptual":
        return f"--no-perceptual was {'not ' * bool(before)}given"
    return f"--{setting.replace('_', '-')} was {before}, now {now}"


def _shown(value: object) -> str:
    return "not given" if value is None else str(value)


def _is_finite(values: object) -> bool:
    """Whether all tensors in a state are."""
    if isinstance(values, torch.Tensor):
        return bool(torch.isfinite(values).all())
    if isinstance(values, dict):
        return all(_is_finite(value) for value in values.values())
    return True
