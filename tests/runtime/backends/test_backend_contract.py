"""What every backend must keep, in one test for all: a new backend is a line in `BACKENDS`."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.backends.openvino import OpenVinoBackend
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.codec import decode_pixels, encode_pixels
from cisi_runtime.parity.compare import compare_backend
from cisi_runtime.parity.golden import golden_path, load_golden
from cisi_train.checkpoint import load_checkpoint

Graphs = dict[tuple[str, str, str], Path]

BACKENDS: dict[str, Callable[[Path], Backend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "onnxruntime-as-written": functools.partial(OnnxRuntimeBackend, optimise=False),
    "openvino": OpenVinoBackend,
    "onnxruntime-one-thread": functools.partial(OnnxRuntimeBackend, threads=1),
}


@pytest.mark.parametrize("face", ["uint8", "tensor"])
@pytest.mark.parametrize("name", BACKENDS)
def test_contract(name: str, face: str, tiny_graphs: Graphs, tiny_checkpoint_path: Path) -> None:
    path = tiny_graphs["float32", "cpu", face]
    backend = BACKENDS[name](path)
    # It knows what it is.
    expected = dataclasses.replace(load_checkpoint(tiny_checkpoint_path).contract, target="cpu", face=face)
    assert backend.contract == expected
    assert backend.fixed == FixedShape()
    # It is the trained network, at several sizes and batches, and leaves known pixels alone.
    assert all(item.passed for item in compare_backend(name, backend, load_golden(golden_path(path)), "float32"))
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    hole = rng.random((3, 64, 96)) < np.array([0.1, 0.5, 0.0])[:, None, None]
    result = backend.run_pixels(image, hole)
    if face == "uint8":
        assert (result.dtype, result.shape) == (np.uint8, image.shape)
        assert np.array_equal(result[2], image[2])  # no hole: nothing changes
    else:
        assert (result.dtype, result.shape) == (np.float32, (3, 3, 64, 96))
        assert np.array_equal(result[2], decode_pixels(image[2]))
    # Each picture of a batch is on its own.
    alone = np.concatenate([backend.run_pixels(image[i : i + 1], hole[i : i + 1]) for i in range(3)])
    pixels = [x if face == "uint8" else encode_pixels(x) for x in (result, alone)]
    assert (pixels[0] != pixels[1]).mean() < 1e-3
    # What is hidden under the hole has no influence.
    other = np.where(hole[..., None], 255 - image, image)
    assert np.array_equal(backend.run_pixels(other, hole), result)
    # The same input gives the same bytes, and the input is left as it was.
    before = image.copy()
    assert np.array_equal(backend.run_pixels(image, hole), result)
    assert np.array_equal(image, before)
