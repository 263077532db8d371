"""What a `last.pt` says of its run, checked before anything of it is taken over."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import torch
from msgspec import Meta
from torch import nn

from cisi_runtime.contract import Provenance
from cisi_runtime.errors import CheckpointError
from cisi_runtime.strict_json import convert
from cisi_train.checkpoint_archive import is_plain, tensor_fault
from cisi_train.colour_statistics import ColourStatistics
from cisi_train.selection import Candidate


@dataclasses.dataclass(frozen=True)
class SavedCounters:
    """What of a run is no tensor; as in `TrainingState`. The bounds keep out what is not finite."""

    step: Annotated[int, Meta(ge=0, le=1 << 53)]
    minutes: Annotated[float, Meta(ge=0, le=1e9)]
    best: Candidate | None
    colours: ColourStatistics | None
    before: Provenance | None


def saved_counters(path: Path, training: dict[str, Any]) -> SavedCounters:
    """Read and check them. Raises CheckpointError."""
    names = [field.name for field in dataclasses.fields(SavedCounters)]
    values = {name: training[name] for name in names if name in training}
    if not is_plain(values):
        raise CheckpointError(f"{path}: {', '.join(names)} of the run are damaged, expected numbers and text")
    counters = convert(values, SavedCounters, f"{path}: the run", CheckpointError)
    figures = [] if counters.best is None else [counters.best.psnr_db, counters.best.lpips or 0.0]
    figures += [] if counters.colours is None else [*counters.colours.mean, *counters.colours.std]
    if not all(abs(figure) < float("inf") for figure in figures):
        raise CheckpointError(f"{path}: the run: best or colours are not finite")
    return counters


def check_network(path: Path, name: str, network: nn.Module, state: object) -> None:
    """Raise CheckpointError unless `state` holds a finite tensor for each of the network's, and no other.

    name: for messages.
    """
    tensors = network.state_dict()
    if not isinstance(state, dict) or set(state) != set(tensors):
        raise CheckpointError(f"{path}: {name} does not fit the architecture, expected tensors of the network's names")
    for key, tensor in tensors.items():
        if (fault := tensor_fault(state[key], tuple(tensor.shape))) is not None:
            raise CheckpointError(f"{path}: {name}: {key} {fault}")


def check_optimiser(path: Path, name: str, optimiser: torch.optim.Optimizer, state: object) -> None:
    """Raise CheckpointError unless `state` is of an optimiser of that kind, Adam or Muon, with the same parameters and
    options, whatever its rate.

    name: for messages. An older PyTorch may have written fewer options.
    """
    own = optimiser.state_dict()["param_groups"]
    is_optimiser = isinstance(state, dict) and set(state) == {"state", "param_groups"}
    if not isinstance(state, dict) or not is_optimiser or not _are_same_groups(state["param_groups"], own):
        raise CheckpointError(f"{path}: {name} has other options or parameters than this version gives it")
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    moments = state["state"]
    if not isinstance(moments, dict) or not all(type(key) is int and 0 <= key < len(parameters) for key in moments):
        raise CheckpointError(f"{path}: {name} has moments of other parameters")
    for number, entry in moments.items():
        shape = tuple(parameters[number].shape)
        shapes: dict[str, tuple[int, ...]] = {"momentum_buffer": shape}
        if isinstance(optimiser, torch.optim.Adam):
            shapes = {"step": (), "exp_avg": shape, "exp_avg_sq": shape}
        if not isinstance(entry, dict) or set(entry) != set(shapes):
            raise CheckpointError(f"{path}: {name}: parameter {number}: expected {', '.join(shapes)}")
        for key, expected in shapes.items():
            fault = tensor_fault(entry[key], expected)
            if fault is None and key in ("step", "exp_avg_sq") and entry[key].min() < 0:
                fault = "is negative"
            if fault is not None:
                raise CheckpointError(f"{path}: {name}: parameter {number}: {key} {fault}")


def _are_same_groups(saved: object, own: list[dict[str, Any]]) -> bool:
    if not is_plain(saved) or not isinstance(saved, list) or len(saved) != len(own):
        return False
    return all(_is_same_group(*pair) for pair in zip(saved, own, strict=True))


def _is_same_group(saved: object, own: dict[str, Any]) -> bool:
    if not isinstance(saved, dict) or not {"lr", "params"} <= set(saved) <= set(own):
        return False
    rate = saved["lr"]
    is_rate = type(rate) in (int, float) and 0.0 <= rate < float("inf")
    return is_rate and all(value == own[name] for name, value in saved.items() if name != "lr")
