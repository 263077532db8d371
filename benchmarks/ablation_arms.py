"""The arms of the ablation: what each changes, and which of them are compared."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch.nn.functional as F
from torch import Tensor

from cisi_train.network.layers import EPS, Normalise, promoted


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train.

    title: for the tables.
    experiment: row of the paper's internal analysis.
    changes: options of the recipe that differ from `COMMON_RECIPE`.
    one_group: every norm over all channels of a picture together, not over each alone. Channels keep their proportions
        so, which may carry colour where there is no style code.
    perceptual: with the perceptual loss, whose VGG-16 is most of a step.
    """

    title: str
    experiment: str
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    one_group: bool = False
    perceptual: bool = False


# What the arms have in common: recipe `ours` but for these.
COMMON_RECIPE = {"optimiser": "adam", "style_losses": False, "image_loss": "l1", "select": "last"}
ANALYSIS = {
    "1": Arm("1", "1"),
    "1-one-group": Arm("1, norms of one group", "1", one_group=True),
    "2": Arm("2", "2"),
    "3": Arm("3", "3"),
    "full": Arm("full", "full"),
    "style-losses": Arm("full, style losses", "full", {"style_losses": True}),
}
OPTIONS = {
    "muon": Arm("full, `--optimiser muon`", "full", {"optimiser": "muon"}),
    "psnr": Arm("full, `--image-loss psnr`", "full", {"image_loss": "psnr"}),
    "direct": Arm("full, `--discriminator-input direct`", "full", {"discriminator_input": "direct"}),
    "constant": Arm("full, `--rate-schedule constant`", "full", {"rate_schedule": "constant"}),
    "no-average": Arm("full, `--no-average`", "full", {"average": False}),
    "paper-holes": Arm("full, `--holes paper`", "full", {"holes": "paper"}),
}
# Arms whose effect, if any, shows in LPIPS; they need `--lpips`.
BY_LPIPS = {
    "perceptual": Arm("full, perceptual loss", "full", perceptual=True),
    "perceptual-weight-1": Arm("full, `--perceptual-weight 1`", "full", {"perceptual_weight": 1.0}, perceptual=True),
    "swapped": Arm("full, `--swapped-perceptual`", "full", {"swapped_perceptual": True}, perceptual=True),
    "select-psnr": Arm("full, `--select psnr`", "full", {"select": "psnr"}),
    "select-lpips": Arm("full, `--select lpips`", "full", {"select": "lpips"}),
}
ARMS = ANALYSIS | OPTIONS | BY_LPIPS
COMPARED_ARMS = (
    *(("2", "1"), ("3", "2"), ("full", "3"), ("full", "1")),
    *(("1-one-group", "1"), ("2", "1-one-group"), ("full", "1-one-group"), ("style-losses", "full")),
    *((name, "full") for name in OPTIONS),
    *(("perceptual", "full"), ("perceptual-weight-1", "perceptual"), ("swapped", "perceptual")),
    *(("select-psnr", "full"), ("select-lpips", "full"), ("select-lpips", "select-psnr")),
)


@contextlib.contextmanager
def norms_of(arm: Arm) -> Iterator[None]:
    """The norms of an arm in every network that runs meanwhile. Checkpoints do not know of them."""

    def one_group(_self: Normalise, x: Tensor) -> Tensor:
        return F.group_norm(promoted(x), 1, eps=EPS)

    with mock.patch.object(Normalise, "forward", one_group) if arm.one_group else contextlib.nullcontext():
        yield
