from pathlib import Path

import numpy as np
import pytest
from benchmarks.soak import BoolArray, UInt8Array, soak

from cisi_runtime.inpainting.inpainter import Inpainter


@pytest.mark.slow
def test_many_calls_from_four_threads(tiny_graph: Path) -> None:
    done = soak(Inpainter(tiny_graph, threads=1), 800, settled_calls=80)
    assert done.different == 0
    assert [point.calls for point in done.curve] == list(range(80, 801, 80))
    # A picture lost in each call would be 55 MB. Measured 2 to 21 MB, because the allocators of threads keep what they
    # like; `python -m benchmarks.soak` makes enough calls to see less.
    assert done.growth_mb < 50


def test_a_leak_and_other_bytes_are_found() -> None:
    lost = []

    def leak(image: UInt8Array, _hole_mask: BoolArray) -> UInt8Array:
        lost.append(np.ones(1_000_000, dtype=np.uint8))
        return image if len(lost) <= 100 else image + np.uint8(1)

    done = soak(leak, 200, threads=1, settled_calls=20)
    # The cases themselves are calls too.
    assert done.different == 200 + 8 - 100
    assert done.growth_mb > 100
