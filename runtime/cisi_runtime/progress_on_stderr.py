"""What people see on stderr while they wait: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

from cisi_runtime.console import LOUDNESS, tell

T = TypeVar("T")

# Called with the current phase of a piece of work, the part of it that is done, and the number of parts (1: no parts).
ShowProgress = Callable[[str, int, int], None]


def show_nothing(_phase: str, _part: int, _parts: int) -> None:
    """For those who did not ask."""


def shows_bars() -> bool:
    """Whether stderr is a terminal, where a bar can move, and --quiet was not asked for."""
    return sys.stderr is not None and sys.stderr.isatty() and not LOUDNESS.quiet


def counted(items: Collection[T], what: str, unit: str, *, leave: bool = True) -> Iterator[T]:
    """The items, under a bar with the time left; where stderr is no terminal, after one line.

    unit: of one item, in the singular. leave: keep the bar when it is full.
    """
    if not shows_bars():
        tell(f"{what}: {len(items)} {unit}{'s' * (len(items) != 1)}")
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, desc=what, unit=f" {unit}", leave=leave, mininterval=1.0)


@contextlib.contextmanager
def phases_on_stderr() -> Iterator[ShowProgress]:
    """Shows each phase of a piece of work. On a terminal a phase with parts has a bar with the time left, which stays;
    any other phase has a line when it begins."""
    display = _Phases()
    try:
        yield display.show
    finally:
        display.close()


class _Phases:
    def __init__(self) -> None:
        self._phase: str | None = None
        self._bar: Any = None

    def show(self, phase: str, part: int, parts: int) -> None:
        if phase != self._phase:
            self.close()
            self._begin(phase, parts)
        if self._bar is not None:
            self._bar.update(part - self._bar.n)

    def close(self) -> None:
        self._phase = None
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _begin(self, phase: str, parts: int) -> None:
        self._phase = phase
        if parts > 1 and shows_bars():
            from tqdm import tqdm

            self._bar = tqdm(desc=phase, total=parts, unit=" case", mininterval=0.5)
        else:
            tell(f"{phase}, {parts} cases" if parts > 1 else phase)
