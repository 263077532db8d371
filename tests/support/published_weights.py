"""VGG-16 and LPIPS with random weights, in files as the published ones come."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cisi_train.lpips import Lpips
from cisi_train.vgg import VggFeatures


def write_vgg(path: Path) -> dict[str, Tensor]:
    """Write VGG-16 as `.npz`, or as PyTorch's file with more than is needed in it. Returns what was written."""
    torch.manual_seed(0)
    weights: dict[str, Tensor] = VggFeatures().state_dict()
    if path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in weights.items()})
    else:
        torch.save({**weights, "classifier.0.weight": torch.zeros(2)}, path)
    return weights


def write_lpips(path: Path) -> None:
    """Write the metric as `.npz`."""
    torch.manual_seed(0)
    metric = Lpips()
    arrays = {f"features.{name}": value.numpy() for name, value in metric.convs.state_dict().items()}
    arrays |= {f"lpips_lin_alex.{layer}": np.full(head.shape, 0.5) for layer, head in enumerate(metric.heads)}
    np.savez(path, **arrays)
