"""How far a run is, by steps or by the clock, and the learning rate that follows."""

from __future__ import annotations

import dataclasses
import time

from cisi_train.recipe import RateSchedule

# Last fraction of a run, over which the learning rate falls linearly to zero.
_ANNEALED_FRACTION = 0.3
# Warm-up steps: Adam's first steps have full length, whatever the gradient.
_WARM_UP_STEPS = 50


@dataclasses.dataclass
class Schedule:
    """The length of a run, in steps or in minutes by the clock; the other is None.

    minutes_before: what earlier parts of a resumed run have used.
    """

    steps: int | None
    minutes: float | None
    minutes_before: float = 0.0

    def __post_init__(self) -> None:
        self._start = time.monotonic()

    @property
    def minutes_used(self) -> float:
        """Minutes used by this run and the parts before it."""
        return self.minutes_before + (time.monotonic() - self._start) / 60.0

    def progress(self, step: int) -> float:
        """Fraction of the run that is over after `step` steps, in [0, 1]."""
        fraction = step / self.steps if self.steps is not None else self.minutes_used / (self.minutes or 1.0)
        return min(1.0, fraction)


def lr_factor(progress: float, step: int, schedule: RateSchedule) -> float:
    """Factor of the learning rate for step number `step`, from 0: always 1, or rises over 50 steps, is 1, falls to zero
    at the end."""
    if schedule == "constant":
        return 1.0
    return min(1.0, (step + 1) / _WARM_UP_STEPS, (1.0 - progress) / _ANNEALED_FRACTION)
