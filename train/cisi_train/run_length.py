"""How long a run will take on this machine, from its first steps."""

from __future__ import annotations

import time
from collections.abc import Callable

from cisi_train.train_options import TrainOptions

# A step is measured until there are so many of them, or until so many seconds are over. The very first one does not
# count: it allocates memory, starts the workers that read pictures, and compiles.
_STEPS, _SECONDS = 10, 10.0
# How much longer a step takes that has all losses than one with image and code losses alone, as the help of --l1-first
# says it: measured 2.77 on a CPU, 2.73 with --compile.
_ALL_LOSSES = 2.7


class RunLength:
    """Measures the first steps of a run, and says once what that means for the rest."""

    def __init__(self, options: TrainOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self._options, self._clock = options, clock
        self._start: tuple[int, float] | None = None
        self._is_said = False

    def after_step(self, step: int, minutes_used: float) -> str | None:
        """A line for people, when enough steps have been measured and there are more to come; else None.

        step: iterations done. minutes_used: by the run so far, in all its parts.
        """
        if self._is_said:
            return None
        now = self._clock()
        if self._start is None:
            self._start = step, now
            return None
        first, start = self._start
        steps, seconds = step - first, now - start
        if steps < _STEPS and seconds < _SECONDS:
            return None
        self._is_said = True
        rest = self._rest(step, minutes_used, seconds / steps)
        if rest is None:
            return None
        return f"{rest} on this machine ({seconds / steps:.2g} s a step, measured over {steps})"

    def _rest(self, step: int, minutes_used: float, seconds_per_step: float) -> str | None:
        """What is left of the run. Steps with all losses come after `--l1-first`, and take longer."""
        options = self._options
        if options.steps is not None:
            quick = max(0.0, options.l1_first * options.steps - step)
            slow = options.steps - step - quick
            seconds = seconds_per_step * (quick + slow * (_ALL_LOSSES if quick else 1.0))
            return f"{options.steps - step:,} steps to go: about {duration(seconds)}" if step < options.steps else None
        assert options.minutes is not None
        quick = max(0.0, options.l1_first * options.minutes - minutes_used)
        slow = max(0.0, options.minutes - minutes_used - quick)
        steps = 60.0 / seconds_per_step * (quick + slow / (_ALL_LOSSES if quick else 1.0))
        return f"{duration(60.0 * (quick + slow))} to go: about {steps:,.0f} steps" if steps >= 1.0 else None


def duration(seconds: float) -> str:
    """In words, with two units at most: 45 s, 12 min, 3 h 20 min, 5 d 2 h, 6 d."""
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60.0)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
    hours = round(minutes / 60)
    return f"{hours // 24} d" + (f" {hours % 24} h" if hours % 24 else "")
