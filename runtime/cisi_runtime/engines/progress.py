"""A build's progress on stderr."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tqdm import tqdm

from cisi_runtime.engines.build import Progress


@contextlib.contextmanager
def shown() -> Iterator[Progress]:
    """A bar for the phase that the builder is in; gone when the block ends. Times of phases are not known beforehand,
    so it shows steps."""
    with tqdm(desc="building", unit="step", leave=False, mininterval=0.2) as bar:

        def show(phase: str, step: int, steps: int) -> None:
            bar.set_description(phase, refresh=False)
            bar.total = steps or None
            bar.n = step
            bar.refresh()

        yield show
