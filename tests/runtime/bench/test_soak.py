from pathlib import Path

import pytest
from benchmarks.soak import soak

from cisi_runtime.inpainting.inpainter import Inpainter

pytestmark = pytest.mark.slow


def test_many_calls_from_four_threads(tiny_graph: Path) -> None:
    done = soak(Inpainter(tiny_graph, threads=1), 800)
    assert done.different == 0
    # Measured with 10,000 calls (python -m benchmarks.soak): 2 MB more than after the first 1,000. Margin: ten times
    # that, because the allocators of threads keep what they like.
    early, late = done.memory_mb
    assert late - early < 20
