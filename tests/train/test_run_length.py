"""What a run will take, with a clock of the test's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cisi_train.run_length import RunLength, duration
from tests.support.training_runs import options


def said(seconds: float, count: int, *, first: int = 0, **changes: Any) -> Iterator[tuple[int, str]]:
    """Steps of so many seconds; the lines, with the step after which they came."""
    clock = iter(seconds * number for number in range(count + 1))
    length = RunLength(options(Path(), Path(), **changes), lambda: next(clock))
    for step in range(first + 1, first + count + 1):
        line = length.after_step(step, (step - first) * seconds / 60.0)
        if line is not None:
            yield step, line


def test_by_steps() -> None:
    assert list(said(0.5, 40, steps=7211)) == [
        (11, "7,200 steps to go: about 1 h on this machine (0.5 s a step, measured over 10)")
    ]


def test_by_minutes() -> None:
    assert list(said(0.5, 40, steps=None, minutes=30.0 + 5.5 / 60)) == [
        (11, "30 min to go: about 3,600 steps on this machine (0.5 s a step, measured over 10)")
    ]


def test_slow_steps_are_not_waited_for() -> None:
    ((step, line),) = said(60.0, 5, steps=100)
    assert step == 2
    assert line.startswith("98 steps to go: about 1 h 38 min on this machine (60 s a step, measured over 1)")


def test_of_a_resumed_run_the_rest_counts() -> None:
    ((step, line),) = said(1.0, 20, first=100, steps=211)
    assert step == 111
    assert line.startswith("100 steps to go: about 2 min on")


def test_steps_with_all_losses_take_longer() -> None:
    ((_, line),) = said(1.0, 40, steps=1011, l1_first=0.5)
    # To go: 494.5 steps of a second, and 505.5 of 2.7.
    assert line.startswith("1,000 steps to go: about 31 min on")
    ((_, line),) = said(1.0, 40, steps=None, minutes=20.0, l1_first=0.5)
    # To go: 589 s with a step a second, and 600 s with one in 2.7 s.
    assert line.startswith("20 min to go: about 811 steps on")


def test_a_run_that_is_over_by_then_needs_no_line() -> None:
    assert not list(said(0.5, 11, steps=11))
    assert not list(said(0.5, 3, steps=3))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (7.4, "7 s"),
        (89.0, "89 s"),
        (91.0, "2 min"),
        (3500.0, "58 min"),
        (7200.0, "2 h"),
        (12_000.0, "3 h 20 min"),
        (1e6, "11 d 14 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
