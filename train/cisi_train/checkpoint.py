"""Checkpoints: weights, contract (architecture, provenance) and, while training goes on, the optimiser's state."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cisi_runtime.architecture import Architecture
from cisi_runtime.contract import Contract
from cisi_runtime.errors import CheckpointError, ContractError, OutputError
from cisi_runtime.files import atomic_file
from cisi_train.checkpoint_archive import is_plain, load_archive, tensor_fault
from cisi_train.network import Generator

_FORMAT = "cisi-net checkpoint"


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    contract: with architecture and provenance.
    weights: float32, by the names of `Generator.state_dict()`.
    configuration: settings of the run that made it: numbers, text, and lists of them.
    training: what resuming needs, unchecked; None in a checkpoint of weights alone.
    """

    contract: Contract
    weights: dict[str, Tensor]
    configuration: dict[str, Any]
    training: dict[str, Any] | None = None

    def generator(self) -> Generator:
        """The network with these weights, in evaluation mode."""
        generator = Generator(self.contract.architecture)
        generator.load_state_dict(self.weights)
        return generator.eval()


def weights_sha256(weights: dict[str, Tensor]) -> str:
    """Hash over names, shapes and float32 bytes. The same weights have the same hash, however they are stored."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().float().contiguous()
        digest.update(f"{name} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: Path,
    contract: Contract,
    weights: dict[str, Tensor],
    *,
    configuration: dict[str, Any],
    training: dict[str, Any] | None = None,
    as_float16: bool = False,
) -> None:
    """Write a checkpoint completely or not at all.

    as_float16: store the weights as float16, for shipping. The contract then carries the hash of the rounded weights.

    Raises CheckpointError for weights that are not finite, also because of that rounding, and OutputError.
    """
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if as_float16:
        stored = {name: tensor.half() for name, tensor in stored.items()}
    bad = [name for name, tensor in stored.items() if not torch.isfinite(tensor).all()]
    if bad:
        stored_as = " in float16" if as_float16 else ""
        raise CheckpointError(f"{path}: not written, these weights are not finite{stored_as}: {', '.join(bad)}")
    contract = dataclasses.replace(contract, weights_sha256=weights_sha256(stored))
    content = {
        "format": _FORMAT,
        "contract": contract.to_json(),
        "configuration": configuration,
        "weights": stored,
        "training": training,
    }
    with atomic_file(path) as temporary:
        try:
            # Given a path, torch.save writes the temporary name into the archive, and equal runs differ in bytes.
            with temporary.open("wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # from the zip writer, when the disk is full
            raise OutputError(f"{path}: cannot be written: {str(error).splitlines()[0]}") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint. Nothing in the file is executed (`weights_only`).

    Raises CheckpointError for a file that is missing, damaged, foreign, of a newer revision, or whose weights do not
    fit its architecture or its hash, are not finite, or are not plain tensors of float32 or float16.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: not a checkpoint of cisi-net, expected a file written by cisi-train")
    content = load_archive(path)
    kinds = {"format": str, "contract": str, "configuration": dict, "weights": dict, "training": dict | None}
    is_ours = isinstance(content, dict) and all(isinstance(content.get(key), kind) for key, kind in kinds.items())
    if not is_ours or content["format"] != _FORMAT or not _are_ours(content):
        raise CheckpointError(f"{path}: not a checkpoint of cisi-net, expected a file written by cisi-train")
    try:
        contract = Contract.from_json(content["contract"])
    except ContractError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _check_weights(path, contract.architecture, content["weights"])
    weights = {name: tensor.float() for name, tensor in content["weights"].items()}
    if weights_sha256(weights) != contract.weights_sha256:
        raise CheckpointError(f"{path}: the weights are not those that were saved (hash differs): damaged file")
    return Checkpoint(contract, weights, content["configuration"], content["training"])


def _are_ours(content: dict[str, Any]) -> bool:
    are_tensors = all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content["weights"].items())
    return are_tensors and is_plain(content["configuration"])


def _check_weights(path: Path, architecture: Architecture, weights: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Generator(architecture).state_dict().items()}
    faults = [f"{name}, which is missing" for name in shapes if name not in weights]
    faults += [f"{name!r:.80}, which it does not have" for name in weights if name not in shapes]
    for name, shape in shapes.items():
        if name in weights and (fault := tensor_fault(weights[name], shape)) is not None:
            faults.append(f"{name}, which {fault}")
    if faults:
        raise CheckpointError(f"{path}: {len(faults)} weights do not fit the architecture, the first is {faults[0]}")
    # As float32, each with numbers of its own, they would need more memory than the file has.
    if len({tensor.untyped_storage().data_ptr() for tensor in weights.values()}) < len(weights):
        raise CheckpointError(f"{path}: several weights share their numbers, expected tensors of their own")
