"""A build's progress on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tqdm import tqdm

from cisi_runtime.building.process import Progress
from cisi_runtime.console import tell
from cisi_runtime.progress_on_stderr import show_nothing, shows_bars


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar for the builder's current phase, removed when the block ends. It counts steps, because the
    duration of a phase is unknown. Where stderr is no terminal, one line."""
    if not shows_bars():
        tell("building the engine")
        yield show_nothing
        return
    with tqdm(desc="building", unit=" step", leave=False, mininterval=0.2) as bar:

        def show(phase: str, step: int, steps: int) -> None:
            bar.set_description(phase, refresh=False)
            bar.total = steps or None
            bar.n = step
            bar.refresh()

        yield show
