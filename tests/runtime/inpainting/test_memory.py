"""Calls that get no memory: an error or the result, and the `Inpainter` is usable afterwards."""

import json
import subprocess
import sys

import pytest

from tests.support.shared import TIMEOUT_S

# The arena of ONNX Runtime has grown for a small picture alone when the limit comes, so that it must grow again.
PROGRAM = """
import json, resource
import numpy as np
from cisi_runtime.errors import CisiError
from cisi_runtime.inpainting.inpainter import Inpainter

def picture(side):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    hole_mask = np.zeros((side, side), dtype=np.bool_)
    hole_mask[side // 2 : side // 2 + 100, side // 2 : side // 2 + 100] = True
    return image, hole_mask

def call(side, more_mib):
    status = open("/proc/self/status").read()
    virtual_kib = int(status.partition("VmSize:")[2].split()[0])
    arguments = picture(side)
    resource.setrlimit(resource.RLIMIT_AS, ((virtual_kib + 1024 * more_mib) * 1024, hard))
    try:
        return "right" if np.array_equal(inpaint(*arguments), expected[side]) else "wrong"
    except (CisiError, MemoryError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))

hard = resource.getrlimit(resource.RLIMIT_AS)[1]
with Inpainter(threads=1) as first:
    expected = {side: first(*picture(side)) for side in (256, 4000)}
inpaint = Inpainter(threads=1)
print(json.dumps([call(256, 0), call(256, 8), call(4000, 1), call(256, 4096), call(4000, 4096)]))
"""


@pytest.mark.slow
def test_calls_without_memory() -> None:
    if sys.platform != "linux":
        pytest.skip("limits address space and reads it from /proc: run it on Linux")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    network, again, photograph, *afterwards = json.loads(done.stdout)
    assert network.startswith("GraphError: ONNX Runtime failed on an image of shape (1, 256, 256, 3): ")
    assert again == "right" or again.startswith("GraphError: ONNX Runtime failed")
    assert photograph.startswith("MemoryError: Unable to allocate")
    assert afterwards == ["right", "right"]
