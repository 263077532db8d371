"""How long each stage of a photograph takes, from file to file, and what is worth a note on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# In the order in which a photograph passes through them.
#   decode: read photograph and mask.
#   prepare: plan windows, scale, pad.
#   copy in, copy out: to and from the layout of the graph's face.
#   run: the network, and at the first call of a size what the backend does for it (see `Backend.prepare`). On a GPU the
#       copies between host and device are part of it.
#   finish: enlarge, blend, composite.
#   detail: texture from the known region.
#   encode: write the file.
#   check: decode the result of a lossy format again, to see what it did to known pixels.
STAGES = ("decode", "prepare", "copy in", "run", "copy out", "finish", "detail", "encode", "check")


class StageTimer:
    """`with timer("run"): ...` adds to the milliseconds of a stage of one photograph. For one thread.

    notes: for people who want to know more, such as why a hole got no detail.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.milliseconds = dict.fromkeys(STAGES, 0.0)

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time the block. Raises KeyError for a stage that is not in `STAGES`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.milliseconds[stage] += 1000.0 * (time.perf_counter() - start)
