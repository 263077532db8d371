"""How far a run is, by steps or by the clock, and what follows from it."""

from __future__ import annotations

import dataclasses
import time

# The last part of a run, over which the learning rate falls to zero in a straight line.
_ANNEALED_PART = 0.3
# First steps, over which it rises: Adam's first steps are all of full length, whatever the gradient.
_WARM_UP_STEPS = 50


@dataclasses.dataclass
class Schedule:
    """A run of so many steps, or of so many minutes of the clock (`steps` or `minutes` is None).

    `minutes_before`: what earlier parts of a resumed run have used up.
    """

    steps: int | None
    minutes: float | None
    minutes_before: float = 0.0

    def __post_init__(self) -> None:
        self._start = time.monotonic()

    @property
    def minutes_used(self) -> float:
        """By this run and the parts before it."""
        return self.minutes_before + (time.monotonic() - self._start) / 60.0

    def progress(self, step: int) -> float:
        """Part of the run that is over after `step` steps, in [0, 1]."""
        part = step / self.steps if self.steps is not None else self.minutes_used / (self.minutes or 1.0)
        return min(1.0, part)


def lr_factor(progress: float, step: int) -> float:
    """Of the learning rate, for step number `step` (from 0): up over 50 steps, then 1, at the end down to zero."""
    return min(1.0, (step + 1) / _WARM_UP_STEPS, (1.0 - progress) / _ANNEALED_PART)
