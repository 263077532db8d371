"""Which convolutions become INT8: what each of them costs, and which have to stay in float."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping

from onnx import ModelProto

from cisi_calibration.defaults import BUDGET_DB
from cisi_calibration.quality import Loss, QualityJudge
from cisi_runtime.console import tell
from cisi_runtime.errors import ParityError
from cisi_runtime.progress_on_stderr import counted

# Smallest fraction of the candidates in INT8. With fewer, INT8 gains too little speed.
_MIN_INT8 = 0.5

# What helps when half of the convolutions in float are not enough.
_ADVICE = (
    "expected other ranges (--method of cisi-calibrate, more photographs, or such as the network will see), "
    "weights that were trained longer, or no INT8 (cisi-export, with --fp16 for TensorRT)"
)
_ADVICE_LOWER = f"expected a lower --budget-db, {BUDGET_DB:g} at least"

# Convolutions that an error names.
_MOST_NAMED = 5

# Makes the graph with INT8 in all candidates but those named.
Quantise = Callable[[Collection[str]], ModelProto]


@dataclasses.dataclass(frozen=True)
class Placement:
    """What was decided.

    per_layer: loss with this candidate alone in INT8.
    all_int8: loss with all candidates in INT8.
    kept_float: candidates that stay in float, the costliest first.
    final_loss: loss of the resulting graph.
    """

    per_layer: dict[str, Loss]
    all_int8: Loss
    kept_float: tuple[str, ...]
    final_loss: Loss


def costliest_in_int8(per_layer: Mapping[str, Loss], kept_float: Collection[str] = ()) -> str:
    """In words, which of the convolutions in INT8 cost most, each alone."""
    quantised = [name for name in per_layer if name not in kept_float]
    worst = sorted(quantised, key=lambda name: per_layer[name].hole_psnr_db)[:_MOST_NAMED]
    return "costliest, alone in INT8: " + ", ".join(f"{name} {per_layer[name].hole_psnr_db:.1f} dB" for name in worst)


def find_placement(names: list[str], quantise: Quantise, quality: QualityJudge, budget_db: float) -> Placement:
    """Find the fewest float candidates for which the graph keeps the budget on the search pictures.

    The noise of single layers nearly adds up. So candidates are taken out of INT8 in the order of what each costs
    alone, as few as it takes, by bisection. Then each of them, the cheapest first, is tried in INT8 once more.

    Raises ParityError when more than half of them would have to stay in float.
    """
    per_layer = {
        name: quality.loss(quantise([other for other in names if other != name]))
        for name in counted(names, "each convolution alone in INT8", "layer")
    }
    costliest = sorted(names, key=lambda name: per_layer[name].hole_psnr_db)
    all_int8 = quality.loss(quantise([]))
    if all_int8.within(budget_db):
        return Placement(per_layer, all_int8, (), all_int8)
    tell(f"all {len(names)} in INT8 miss the budget: searching for the fewest that must stay in float")
    count, final_loss = _smallest_count(costliest, quantise, quality, budget_db, per_layer, all_int8)
    kept_float = costliest[:count]
    for name in reversed(costliest[:count]):
        fewer = [other for other in kept_float if other != name]
        loss = quality.loss(quantise(fewer))
        if loss.within(budget_db):
            kept_float, final_loss = fewer, loss
    return Placement(per_layer, all_int8, tuple(kept_float), final_loss)


def _smallest_count(
    costliest: list[str],
    quantise: Quantise,
    quality: QualityJudge,
    budget_db: float,
    per_layer: Mapping[str, Loss],
    all_int8: Loss,
) -> tuple[int, Loss]:
    """How many of the costliest must stay in float, and the loss with that many, by bisection."""
    too_few, enough = 0, int(len(costliest) * (1.0 - _MIN_INT8))
    loss_with_enough = quality.loss(quantise(costliest[:enough]))
    if not loss_with_enough.within(budget_db):
        advice = _ADVICE_LOWER if loss_with_enough.within(BUDGET_DB) else _ADVICE
        raise ParityError(
            f"the budget of {budget_db:g} dB cannot be met: with all {len(costliest)} candidates in INT8 {all_int8}; "
            f"with the {enough} costliest in float {loss_with_enough}; with more of them in float INT8 is no gain; "
            f"{costliest_in_int8(per_layer)}; {advice}"
        )
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        loss = quality.loss(quantise(costliest[:middle]))
        if loss.within(budget_db):
            enough, loss_with_enough = middle, loss
        else:
            too_few = middle
    return enough, loss_with_enough
