"""Memory is measured in a process of its own: what tests before this one have given back would hide what is lost."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.networks import ROOT
from tests.support.shared import TIMEOUT_S

# A picture lost in each call would be 55 MB. Measured 2 to 21 MB, because the allocators of threads keep what they
# like; `python -m benchmarks.soak` makes enough calls to see less.
MOST_MB = 50
BEGIN = """
import dataclasses, json, sys
import numpy as np
from benchmarks.soak import soak
from cisi_runtime.inpainting.inpainter import Inpainter
"""
FOUR_THREADS = """
done = soak(Inpainter(sys.argv[1], threads=1), 800, settled_calls=80)
"""
LEAK = """
lost = []
def leak(image, hole_mask):
    lost.append(np.ones(1_000_000, dtype=np.uint8))
    return image if len(lost) <= 100 else image + np.uint8(1)
done = soak(leak, 200, threads=1, settled_calls=20)
"""
END = """
print(json.dumps({**dataclasses.asdict(done), "growth_mb": done.growth_mb}))
"""


def soaked(program: str, *arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-c", BEGIN + program + END, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_many_calls_from_four_threads(tiny_graph: Path) -> None:
    done = soaked(FOUR_THREADS, tiny_graph)
    assert done["different"] == 0
    assert [point["calls"] for point in done["curve"]] == list(range(80, 801, 80))
    assert done["growth_mb"] < MOST_MB


def test_a_leak_and_other_bytes_are_found() -> None:
    done = soaked(LEAK)
    # The cases themselves are calls too.
    assert done["different"] == 200 + 8 - 100
    assert done["growth_mb"] > 100
