"""Accuracy-bounded placement: what each convolution costs in INT8, and which of them have to stay high."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from onnx import ModelProto
from tqdm import tqdm

from cisi_calibration.quality import Judge, Loss
from cisi_runtime.errors import ParityError

# An INT8 graph with fewer of its candidates in INT8 than this part of them is slower than it is worth.
_LEAST_INT8 = 0.5

# A graph with INT8 in all candidates but those named.
Place = Callable[[Collection[str]], ModelProto]


@dataclasses.dataclass(frozen=True)
class Placement:
    """What was decided. alone: the loss of each candidate when it alone is INT8; all_int8: of all of them together;
    high: those that stay high, the costliest first; chosen: the loss of the graph that results."""

    alone: dict[str, Loss]
    all_int8: Loss
    high: tuple[str, ...]
    chosen: Loss


def find_placement(names: list[str], place: Place, judge: Judge, budget_db: float) -> Placement:
    """Keep the fewest candidates high for which the whole graph keeps the budget on the judge's pictures.

    Noise of single layers adds up, nearly: so candidates are taken out of INT8 in the order of what each costs alone,
    as few as it takes (by bisection), and then each of them, the cheapest first, is tried in INT8 once more. Raises
    ParityError when more than half of them would have to stay high.
    """
    alone = {
        name: judge.loss(place([other for other in names if other != name]))
        for name in tqdm(names, desc="each convolution alone in INT8", unit="layer", mininterval=1.0)
    }
    costliest = sorted(names, key=lambda name: alone[name].hole_psnr_db)
    all_int8 = judge.loss(place([]))
    chosen, few = all_int8, 0
    if not all_int8.within(budget_db):
        many = int(len(names) * (1.0 - _LEAST_INT8))
        best = judge.loss(place(costliest[:many]))
        if not best.within(budget_db):
            raise ParityError(
                f"the budget of {budget_db:g} dB cannot be met: with all {len(names)} candidates in INT8 "
                f"{all_int8}; with the {many} costliest high {best}; with more of them high INT8 is no gain"
            )
        # Of `few` it is known that they are too few, or that it is none; of `many`, that they are enough.
        chosen = best
        while many - few > 1:
            middle = (few + many) // 2
            loss = judge.loss(place(costliest[:middle]))
            if loss.within(budget_db):
                many, chosen = middle, loss
            else:
                few = middle
        few = many
    high = costliest[:few]
    for name in reversed(costliest[:few]):
        fewer = [other for other in high if other != name]
        loss = judge.loss(place(fewer))
        if loss.within(budget_db):
            high, chosen = fewer, loss
    return Placement(alone, all_int8, tuple(high), chosen)
