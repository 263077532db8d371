from pathlib import Path

import numpy as np
import onnx
import pytest

from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.contract import METADATA_KEY
from cisi_runtime.errors import ContractError, GraphError

Graphs = dict[tuple[str, str, str], Path]


def pixels(*shape: int) -> np.ndarray:
    return np.zeros(shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "hole_mask", "message"),
    [
        (np.zeros((1, 64, 64, 3), dtype=np.float32), pixels(1, 64, 64), "image: expected uint8, got float32"),
        (pixels(1, 64, 64, 3), np.zeros((1, 64, 64), dtype=np.bool_), "hole_mask: expected uint8, got bool"),
        (pixels(64, 64, 3), pixels(1, 64, 64), r"image: expected \[N, H, W, 3\]"),
        (pixels(1, 3, 64, 64), pixels(1, 64, 64), r"image: expected \[N, H, W, 3\]"),
        (pixels(1, 64, 64, 3), pixels(2, 64, 64), r"hole_mask: expected \(1, 64, 64\)"),
        (pixels(1, 66, 64, 3), pixels(1, 66, 64), "multiples of 16, 64 or more, got 66x64"),
        (pixels(1, 48, 64, 3), pixels(1, 48, 64), "multiples of 16, 64 or more, got 48x64"),
    ],
)
def test_what_it_is_given_is_checked(tiny_graph: Path, image: np.ndarray, hole_mask: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OnnxRuntimeBackend(tiny_graph).run(image, hole_mask)


def test_both_faces_are_one_computation(tiny_graphs: Graphs) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 64, 80, 3), dtype=np.uint8)
    hole = rng.random((2, 64, 80)) < 0.3
    from cisi_runtime.codec import encode_pixels

    by_pixels = OnnxRuntimeBackend(tiny_graphs["float32", "cpu", "uint8"]).run_pixels(image, hole)
    by_floats = OnnxRuntimeBackend(tiny_graphs["float32", "cpu", "tensor"]).run_pixels(image, hole)
    assert by_pixels.dtype == np.uint8
    assert by_floats.dtype == np.float32
    changed = by_pixels != encode_pixels(by_floats)
    assert changed.mean() < 1e-3  # values that lie on the edge between two levels
    assert not changed[~hole].any()


def test_a_mask_level_of_128_is_hole_and_127_is_not(tiny_graph: Path) -> None:
    backend = OnnxRuntimeBackend(tiny_graph)
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    mask = np.full((1, 64, 64), 127, dtype=np.uint8)
    assert np.array_equal(backend.run(image, mask), image)
    mask[0, 20:40, 20:40] = 128
    completed = backend.run(image, mask)
    assert np.array_equal(completed[mask < 128], image[mask < 128])
    assert not np.array_equal(completed, image)


def test_files_that_are_not_graphs_of_ours(tmp_path: Path, tiny_graph: Path) -> None:
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty.onnx").write_bytes(b"")
    (tmp_path / "cut.onnx").write_bytes(tiny_graph.read_bytes()[:-100_000])
    for name in ("text.onnx", "empty.onnx", "cut.onnx"):
        with pytest.raises(GraphError, match=f"{name}: is not an ONNX file"):
            OnnxRuntimeBackend(tmp_path / name)
    with pytest.raises(GraphError, match=r"missing.onnx: no such file"):
        OnnxRuntimeBackend(tmp_path / "missing.onnx")


def with_contract(source: Path, path: Path, text: str | None) -> Path:
    model = onnx.load(source)
    del model.metadata_props[:]
    if text is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
    onnx.save(model, path)
    return path


def test_graphs_without_a_contract_that_fits(tmp_path: Path, tiny_graphs: Graphs) -> None:
    pixels, floats = (tiny_graphs["float32", "cpu", face] for face in ("uint8", "tensor"))
    contract = OnnxRuntimeBackend(pixels).contract.to_json()
    path = tmp_path / "g.onnx"
    cases = [
        (pixels, None, "has no CISI-net contract, expected a graph written by cisi-export"),
        (pixels, contract.replace('"revision": 1', '"revision": 99'), "newer than"),
        (pixels, contract.replace('"uint8"', '"tensor"'), "casts to uint8 more often than face tensor does"),
        (floats, contract, "inputs and outputs are .* expected .* by its contract"),
    ]
    for graph, text, message in cases:
        with pytest.raises(ContractError, match=f"g.onnx: .*{message}"):
            OnnxRuntimeBackend(with_contract(graph, path, text))
