"""Networks with weights that hide no error: a fresh one renders almost nothing and has a single style."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cisi_runtime.contract import Provenance

if TYPE_CHECKING:
    from cisi_train.network import Generator

ROOT = Path(__file__).parent.parent.parent
PHOTOS = ROOT / "tests" / "photos"
SHARED_DATA = ROOT.parent / "shared" / "data"


def provenance() -> Provenance:
    """Of made weights."""
    return Provenance("made for tests", "CC0", "0" * 64, 3, 7, "tiny")


def roughen(generator: Generator) -> None:
    """Make biases and scales differ, and styles too."""
    import torch

    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("bias") or parameter.ndim == 3:
                parameter.add_(0.1 * torch.randn_like(parameter))
        generator.style.to_code.weight.mul_(1.5)
