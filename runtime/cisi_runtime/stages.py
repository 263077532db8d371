"""Where the time goes, from file to file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# In the order in which a photograph passes them. copy in, copy out: to the graph's face and back; on a GPU the copies
# between both memories are part of the work that is launched as one, and count as run. decode: photograph and mask;
# check: what a lossy format did to known pixels, which takes another decoding.
STAGES = ("decode", "prepare", "copy in", "run", "copy out", "finish", "encode", "check")


class Stages:
    """`with stages("run"): ...` adds to the milliseconds of a stage of one photograph. For one thread."""

    def __init__(self) -> None:
        self.milliseconds = dict.fromkeys(STAGES, 0.0)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the block. Raises KeyError for a stage that is not in `STAGES`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[stage] += 1000.0 * (time.perf_counter() - start)
