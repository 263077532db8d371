from pathlib import Path

import pytest
from benchmarks.soak import soak

from cisi_runtime.inpainting.inpainter import Inpainter

pytestmark = pytest.mark.slow


def test_many_calls_from_four_threads(tiny_graph: Path) -> None:
    done = soak(Inpainter(tiny_graph, threads=1), 800)
    assert done.different == 0
    # A picture lost in each call would be 55 MB. Measured 2 to 21 MB, because the allocators of threads keep what they
    # like; `python -m benchmarks.soak` makes enough calls to see less.
    early, late = done.memory_mb
    assert late - early < 50
