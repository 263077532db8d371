"""Weights that others have published: from a file that the user names, or from their own address with a hash check."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cisi_runtime.errors import WeightsError
from cisi_runtime.progress_on_stderr import shows_bars
from cisi_train.damage import DAMAGE, damage_reason


def read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The named tensors of a `.npz` or PyTorch file as float32. Nothing in the file is executed.

    Raises WeightsError for a file that is missing, damaged, or does not hold them in these shapes.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        tensors = _read_npz(path, shapes) if path.suffix == ".npz" else _read_torch(path)
    except DAMAGE as error:
        raise WeightsError(f"{path}: cannot be read as weights: {damage_reason(error)}") from error
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            what = f"has shape {tuple(tensors[name].shape)}" if name in tensors else "is missing"
            raise WeightsError(f"{path}: {name} {what}, expected {shape}")
    return {name: tensors[name].float() for name in shapes}


def kept_at(url: str) -> Path:
    """Where `fetch` keeps a file: in a folder of ours in PyTorch's cache."""
    return Path(torch.hub.get_dir()) / "cisi-net" / url.rsplit("/", 1)[1]


def fetch(url: str, sha256_start: str, *, instead: str) -> Path:
    """Download a file once, to `kept_at(url)`, and check how its SHA-256 begins.

    instead: what helps where there is no connection, for the error.

    Raises WeightsError without a connection, and for a file that is not the expected one. A damaged copy is removed.
    """
    path = kept_at(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256_start, progress=shows_bars())
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError: the hash differs
        reason = getattr(error, "reason", error)  # URLError puts it into brackets
        raise WeightsError(f"{url}: cannot be fetched: {reason}; expected a connection, or {instead}") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256_start):
        with contextlib.suppress(OSError):
            path.unlink()
        raise WeightsError(f"{path}: SHA-256 begins {digest[:16]}, expected {sha256_start}; removed, try again")
    return path


def _read_npz(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files if name in shapes}


def _read_torch(path: Path) -> dict[str, Tensor]:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        raise TypeError("expected a dictionary of tensors")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}
