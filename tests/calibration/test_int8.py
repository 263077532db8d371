import dataclasses
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from cisi_calibration.observe import calibration_pictures, observe_ranges
from cisi_calibration.quantise import convolutions_to_quantise, quantise, tensors_to_observe
from cisi_export.cli import main as export_main
from cisi_export.initialisers import compare_initialisers
from cisi_export.metadata import set_contract
from cisi_runtime.backends.base import graph_inputs
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.errors import DataError, GraphError, PictureError
from cisi_runtime.golden import golden_path, load_golden
from cisi_runtime.inpainter import SHIPPED_GRAPH
from cisi_runtime.parity import check_backend
from cisi_runtime.pictures import Picture, write_picture
from cisi_train.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def quantised(tiny_graph: Path, photo_folder: Path) -> onnx.ModelProto:
    model = onnx.load(tiny_graph)
    contract = OnnxRuntimeBackend(tiny_graph).contract
    table = observe_ranges(
        model,
        tensors_to_observe(model),
        calibration_pictures(photo_folder)[:8],
        lambda image, hole: graph_inputs(contract, image, hole),
    )
    graph = quantise(model, table)
    set_contract(graph, dataclasses.replace(contract, precision="int8"))
    return graph


def one_convolution() -> onnx.ModelProto:
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    weight = onnx.numpy_helper.from_array(np.ones((8, 8, 1, 1), dtype=np.float32), "weight")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "weight"], ["y"], name="conv")],
        "graph",
        [helper.make_tensor_value_info("x", floats, [1, 8, 256, 256])],
        [helper.make_tensor_value_info("y", floats, [1, 8, 256, 256])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_min_max_is_the_extremes_over_all_pictures(photo_folder: Path) -> None:
    seen: list[np.ndarray] = []

    def feeds(image: np.ndarray, hole_mask: np.ndarray) -> dict[str, np.ndarray]:
        x = image.transpose(0, 3, 1, 2).astype(np.float32) * np.where(hole_mask, 0.0, 1.0)[:, None]
        seen.append(np.concatenate([x, -2 * x, x[:, :2]], axis=1).astype(np.float32))
        return {"x": seen[-1]}

    pictures = calibration_pictures(photo_folder)[:3]
    table = observe_ranges(one_convolution(), ["x", "y"], pictures, feeds)
    assert table.pictures == 3
    assert table.ranges["x"] == (min(x.min() for x in seen), max(x.max() for x in seen))
    sums = [x.sum(axis=1) for x in seen]
    assert table.ranges["y"] == pytest.approx((min(s.min() for s in sums), max(s.max() for s in sums)), rel=1e-5)
    assert all(0.0 in x for x in seen)  # every picture had a hole


def test_ranges_do_not_depend_on_order(photo_folder: Path, tiny_graph: Path) -> None:
    model = onnx.load(tiny_graph)
    contract = OnnxRuntimeBackend(tiny_graph).contract
    pictures = calibration_pictures(photo_folder)[:2]
    names = tensors_to_observe(model)[:3]
    forward, backward = (
        observe_ranges(model, names, order, lambda image, hole: graph_inputs(contract, image, hole)).ranges
        for order in (pictures, pictures[::-1])
    )
    assert forward == backward


def test_calibration_pictures(photo_folder: Path, tmp_path: Path) -> None:
    assert len(calibration_pictures(photo_folder)) == 20
    assert calibration_pictures(photo_folder) == calibration_pictures(photo_folder)
    assert calibration_pictures(photo_folder, seed=1) != calibration_pictures(photo_folder)
    with pytest.raises(DataError, match="no such folder"):
        calibration_pictures(tmp_path / "missing")
    with pytest.raises(DataError, match="0 pictures, expected 8 or more"):
        calibration_pictures(tmp_path)


def test_an_unreadable_picture_stops_the_calibration(tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("text")
    with pytest.raises(PictureError, match=r"bad.jpg"):
        observe_ranges(one_convolution(), ["x"], [tmp_path / "bad.jpg"], lambda *_: {})


def test_what_is_quantised(tiny_graph: Path, quantised: onnx.ModelProto) -> None:
    before = onnx.load(tiny_graph)
    convolutions = [node for node in before.graph.node if node.op_type == "Conv"]
    # First convolutions of ICE and SE and the last of the decoder stay in float32.
    assert len(convolutions) - len(convolutions_to_quantise(before)) == 3
    initialisers = {initialiser.name: initialiser for initialiser in quantised.graph.initializer}
    producers = {name: node for node in quantised.graph.node for name in node.output}
    int8 = 0
    for node in quantised.graph.node:
        if node.op_type != "Conv":
            continue
        weight = producers.get(node.input[1])
        if weight is None:
            continue
        int8 += 1
        assert weight.op_type == "DequantizeLinear"
        assert initialisers[weight.input[0]].data_type == onnx.TensorProto.INT8
        assert len(initialisers[weight.input[1]].dims) == 1  # a scale for each output channel
        assert producers[node.input[0]].op_type == "DequantizeLinear"
        if len(node.input) == 3:
            assert initialisers[node.input[2]].data_type == onnx.TensorProto.FLOAT
    assert int8 == len(convolutions_to_quantise(before))
    onnx.checker.check_model(quantised, full_check=True)


def test_a_quantised_graph_is_not_quantised_again(quantised: onnx.ModelProto) -> None:
    with pytest.raises(GraphError, match="quantised already"):
        convolutions_to_quantise(quantised)


def test_the_quantised_graph_runs_and_keeps_known_pixels(quantised: onnx.ModelProto, tiny_graph: Path) -> None:
    golden = load_golden(golden_path(tiny_graph))
    backend = OnnxRuntimeBackend(quantised.SerializeToString())
    # Random weights: 20 dB is what INT8 leaves of them; the budget of 35 dB is for trained ones.
    for comparison in check_backend("int8", backend, golden, "int8"):
        assert comparison.finite
        assert comparison.known_identical
        assert comparison.hole_psnr_db > 15.0 or comparison.case == "one pixel"


def test_quantised_weights_are_the_checkpoints(quantised: onnx.ModelProto, tiny_checkpoint_path: Path) -> None:
    weights = {name: value.numpy() for name, value in load_checkpoint(tiny_checkpoint_path).weights.items()}
    lines = compare_initialisers(quantised, weights)
    assert sum(line.stored_as == "int8" for line in lines) == 25
    assert all(line.passed for line in lines)
    assert max(line.worst for line in lines if line.stored_as == "int8") > 0.5  # rounding was seen
    wrong = onnx.ModelProto()
    wrong.CopyFrom(quantised)
    name = "decoder.blocks.1.conv2.weight"
    (item,) = (item for item in wrong.graph.initializer if item.name == f"generator.{name}_quantized")
    array = onnx.numpy_helper.to_array(item).copy()
    array.flat[77] -= np.sign(array.flat[77]) * 2  # two steps in one weight: nobody sees that in a picture
    item.CopyFrom(onnx.numpy_helper.from_array(array, item.name))
    assert [line.name for line in compare_initialisers(wrong, weights) if not line.passed] == [name]
    # All zeros, under a scale so coarse that it would explain them.
    item.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(array), item.name))
    (scale,) = (item for item in wrong.graph.initializer if item.name == f"generator.{name}_scale")
    largest = np.abs(weights[name]).max(axis=(1, 2, 3))
    scale.CopyFrom(onnx.numpy_helper.from_array((2.1 * largest).astype(np.float32), scale.name))
    assert [line.name for line in compare_initialisers(wrong, weights) if not line.passed] == [name]


def test_a_graph_that_only_says_int8(tiny_graph: Path, tiny_checkpoint_path: Path) -> None:
    model = onnx.load(tiny_graph)
    set_contract(model, dataclasses.replace(OnnxRuntimeBackend(tiny_graph).contract, precision="int8"))
    weights = {name: value.numpy() for name, value in load_checkpoint(tiny_checkpoint_path).weights.items()}
    (bad,) = (line for line in compare_initialisers(model, weights) if not line.passed)
    assert bad.stored_as == "float32, but the contract says int8"


def test_int8_of_untrained_weights_misses_the_budget_and_is_not_written(
    tiny_checkpoint_path: Path,
    photo_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "t.int8.cpu.onnx"
    arguments = ["--ckpt", str(tiny_checkpoint_path), "--int8", "--calib", str(photo_folder), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["cisi-export", *arguments])
    with pytest.raises(SystemExit) as stopped:
        export_main()
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert "comparisons failed" in captured.err
    failed = [line for line in captured.out.splitlines() if line.endswith("FAIL")]
    assert failed
    assert all(line.startswith("ONNX int8") for line in failed)
    assert not list(tmp_path.iterdir())


def test_int8_of_the_shipped_weights_keeps_the_budget(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small.int8.cpu.onnx"
    checkpoint = SHIPPED_GRAPH.with_suffix(".pt")
    arguments = ["--ckpt", str(checkpoint), "--int8", "--calib", str(photo_folder), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["cisi-export", *arguments])
    export_main()
    assert OnnxRuntimeBackend(out).contract.precision == "int8"
    assert out.stat().st_size < 0.5 * SHIPPED_GRAPH.stat().st_size


def test_bad_calibration_folders_name_the_option(
    tiny_checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "one.png", Picture(np.zeros((64, 64, 3), dtype=np.uint8)))
    arguments = ["--ckpt", str(tiny_checkpoint_path), "--int8", "--calib", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["cisi-export", *arguments])
    with pytest.raises(SystemExit) as stopped:
        export_main()
    assert stopped.value.code == 1
    assert "error: --calib: " in capsys.readouterr().err
