"""`cisi-parity` with a checkpoint, weights one by one, layer by layer, graphs of one size."""

import copy
import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from cisi_calibration.model_contract import exporter_versions, record_of, sealed_bytes
from cisi_export import against_checkpoint
from cisi_export.compare_layers import compare_layers
from cisi_export.exporting import GraphOptions, export_graph, float_graph
from cisi_export.weight_check import compare_weights, deployed_weights
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.cli.parity import main
from cisi_runtime.errors import GraphError, ParityError
from cisi_runtime.parity.checks import check_graph_parity, check_parity, cpu_runnable
from cisi_runtime.parity.compare import case_inputs
from cisi_runtime.parity.golden import golden_path, load_golden, save_golden
from cisi_runtime.parity.verdict import ParityReport
from cisi_runtime.pictures.reading import read_picture
from cisi_train.checkpoint import load_checkpoint
from tests.conftest import RunMain

Graphs = dict[tuple[str, str, str], Path]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["cisi-parity", *map(str, arguments)])
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def perturbed(path: Path, initialiser: str, to: Path) -> Path:
    model = onnx.load(path)
    (item,) = (item for item in model.graph.initializer if item.name == initialiser)
    array = numpy_helper.to_array(item)
    noise = 1 + 0.05 * np.random.default_rng(0).standard_normal(array.shape)
    item.CopyFrom(numpy_helper.from_array((array * noise).astype(array.dtype), initialiser))
    to.write_bytes(model.SerializeToString())
    return to


@pytest.mark.slow
@pytest.mark.parametrize("key", [("float32", "cpu", "uint8"), ("float16", "tensorrt", "uint8")], ids=["fp32", "fp16"])
def test_against_the_checkpoint(
    tiny_graphs: Graphs,
    tiny_checkpoint_path: Path,
    key: tuple[str, str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, tiny_graphs[key], "--ckpt", tiny_checkpoint_path, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    assert len(report["comparisons"]) == (3 if key[0] == "float32" else 4) * 12  # float16 has a float32 twin
    assert len(report["weights"]) == 46
    assert all(item["passed"] for item in (*report["comparisons"], *report["weights"]))
    assert report["first_bad_layer"] is None


@pytest.mark.slow
@pytest.mark.usefixtures("shared_exports")
def test_the_first_bad_layer_is_named(
    tiny_graph: Path,
    tiny_checkpoint_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "generator.inferred_content.blocks.2.conv1.weight"
    bad = perturbed(tiny_graph, name, tmp_path / "bad.onnx")
    assert run(monkeypatch, bad, "--ckpt", tiny_checkpoint_path) == 1
    captured = capsys.readouterr()
    model = onnx.load(tiny_graph)
    (layer,) = (node.output[0] for node in model.graph.node if name in node.input)
    assert f"first layer that differs: Conv -> {layer}, relative error" in captured.out
    assert "1 of 46 are not the checkpoint's, the first: inferred_content.blocks.2.conv1.weight" in captured.out
    assert "comparisons failed" in captured.err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("shared_exports")
def test_layers_of_a_sound_float16_graph(tiny_graphs: Graphs, tiny_checkpoint_path: Path) -> None:
    path = tiny_graphs["float16", "tensorrt", "uint8"]
    right = float_graph(load_checkpoint(tiny_checkpoint_path), precision="float16", target="tensorrt", face="uint8")
    case = load_golden(golden_path(path)).cases[0]
    inputs = case_inputs(read_graph(path).contract, case.image, case.hole_mask)
    pair = [onnx.load_from_string(cpu_runnable(graph).serialised()) for graph in (right.SerializeToString(), path)]
    found = compare_layers(*pair, inputs, 1e-6)
    assert found.first_bad_layer is None
    assert found.missing is None
    assert len(found.layers) > 50


def test_weights_that_are_lost_or_new(tiny_graph: Path, tiny_checkpoint_path: Path) -> None:
    model = onnx.load(tiny_graph)
    weights = {name: value.numpy() for name, value in load_checkpoint(tiny_checkpoint_path).weights.items()}
    assert all(item.passed for item in compare_weights(model, weights))
    renamed = copy.deepcopy(model)
    (item,) = (item for item in renamed.graph.initializer if item.name == "generator.style.convs.1.weight")
    item.name = "other"
    bad = {item.name: item for item in compare_weights(renamed, weights) if not item.passed}
    left = "generator.style.convs.1.weight (not in the checkpoint)"  # what the convolution still asks for
    assert set(bad) == {"style.convs.1.weight", left, "other (not in the checkpoint)"}
    assert bad["style.convs.1.weight"].stored_as == "missing"


def with_other_epsilon(graph: Path, folder: Path) -> Path:
    """A copy with its golden file beside it and another epsilon in the last norm, where no number shows it."""
    model = onnx.load(graph)
    norm = [node for node in model.graph.node if node.op_type == "InstanceNormalization"][-1]
    norm.attribute[0].f = 1.1e-5
    path = folder / graph.name
    path.write_bytes(model.SerializeToString(deterministic=True))
    golden_path(path).write_bytes(golden_path(graph).read_bytes())
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("shared_exports")
def test_a_changed_graph_fails_by_its_structure(
    run_main: RunMain, tiny_graph: Path, tiny_checkpoint_path: Path, tmp_path: Path
) -> None:
    changed = with_other_epsilon(tiny_graph, tmp_path)
    status, out, err = run_main(main, changed)
    assert status == 1
    assert "structure: the file as exported: 1 differences  FAIL" in out
    assert "1 of 25 comparisons failed" in err
    status, out, _ = run_main(main, changed, "--structure", "report")
    assert status == 0
    assert "it was changed after its export; --ckpt tells what differs" in out
    assert not check_parity(changed).passed
    assert check_parity(changed, structure_required=False).passed
    status, out, _ = run_main(main, changed, "--ckpt", tiny_checkpoint_path)
    assert status == 1
    assert "every node as a fresh export's: 1 differences  FAIL" in out
    assert re.search(r"InstanceNormalization \S+: epsilon is 1.1\d*e-05, expected 9.99\d*e-06", out)


@pytest.mark.slow
def test_a_graph_of_other_versions_may_be_written_otherwise_but_not_changed(
    tiny_graph: Path, tiny_checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(against_checkpoint, "exporter_versions", lambda: exporter_versions() | {"torch": "99.0"})
    # As if this version wrote another epsilon in other words.
    differences = ["Relu node_7: expected Clip there"]
    monkeypatch.setattr(against_checkpoint, "structure_differences", lambda *_: differences)
    monkeypatch.setattr(against_checkpoint, "verify_export", lambda *_: ParityReport([]))
    monkeypatch.setattr(against_checkpoint, "make_golden", lambda *_: None)
    fresh = onnx.load(tiny_graph)
    monkeypatch.setattr(against_checkpoint, "float_graph", lambda *_, **__: fresh)
    checks = against_checkpoint.verify_against_checkpoint(read_graph(tiny_graph), tiny_checkpoint_path)[1].structure
    assert [check.passed for check in checks] == [True, True]
    assert "exported with cisi-net" in str(checks[0])
    assert "reported, the numbers decide" in str(checks[0])
    changed = read_graph(with_other_epsilon(tiny_graph, tmp_path))
    for structure, passed in (("auto", [True, False]), ("require", [False, False]), ("report", [True, True])):
        report = against_checkpoint.verify_against_checkpoint(changed, tiny_checkpoint_path, structure)[1]
        assert [check.passed for check in report.structure] == passed


@pytest.mark.slow
def test_a_record_of_other_packages_is_no_other_version(
    tiny_graph: Path, tiny_checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against_checkpoint, "verify_export", lambda *_: ParityReport([]))
    monkeypatch.setattr(against_checkpoint, "make_golden", lambda *_: None)
    fresh = onnx.load(tiny_graph)
    monkeypatch.setattr(against_checkpoint, "float_graph", lambda *_, **__: fresh)
    record = record_of(fresh)
    assert record is not None
    for other, message in (
        ({"versions": {}}, "the export record names versions of [], expected ['cisi-net', "),
        ({"versions": record.versions | {"extra": "1"}}, "'extra'"),
        ({"reduce_range": True}, "the export record speaks of INT8"),
    ):
        changed = read_graph(sealed_bytes(fresh, dataclasses.replace(record, **other)))
        report = against_checkpoint.verify_against_checkpoint(changed, tiny_checkpoint_path)[1]
        assert not report.passed
        assert message in report.structure[0].differences[0]


@pytest.mark.slow
@pytest.mark.usefixtures("shared_exports")
def test_a_graph_that_another_tool_moved_to_newer_operators(
    run_main: RunMain, tiny_graph: Path, tiny_checkpoint_path: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "tiny.onnx"
    onnx.save(onnx.version_converter.convert_version(onnx.load(tiny_graph), 21), moved)
    shutil.copy(golden_path(tiny_graph), golden_path(moved))
    assert run_main(main, moved, "--structure", "report")[0] == 0
    status, out, err = run_main(main, moved, "--ckpt", tiny_checkpoint_path, "--structure", "report")
    assert status == 0, out + err
    assert "operator sets are [('', 21)]" in out


def test_types_that_contradict_each_other_are_an_error_of_ours(tiny_graphs: dict[tuple[str, str, str], Path]) -> None:
    model = onnx.load(tiny_graphs["float16", "tensorrt", "uint8"])
    model.graph.value_info[30].type.tensor_type.shape.dim[1].dim_value = 7
    with pytest.raises(GraphError, match="the graph's types contradict each other, or cannot"):
        cpu_runnable(model.SerializeToString())


def test_a_golden_file_that_was_cut_down_is_refused(run_main: RunMain, tmp_path: Path) -> None:
    graph = tmp_path / "small.onnx"
    graph.write_bytes(SHIPPED_GRAPH.read_bytes())
    golden = load_golden(golden_path(SHIPPED_GRAPH))
    save_golden(golden_path(graph), dataclasses.replace(golden, cases=golden.cases[8:9]))
    for arguments in ((graph,), (graph, "--backend", "onnxruntime"), (graph, "--structure", "report")):
        status, _, err = run_main(main, *arguments)
        assert status == 1
        assert "the golden file is not the one that it was exported with" in err


def test_in_the_backend_that_will_run_it(run_main: RunMain, tiny_graph: Path, tiny_checkpoint_path: Path) -> None:
    golden = golden_path(tiny_graph)
    status, out, _ = run_main(main, tiny_checkpoint_path, "--golden", golden, "--backend", "torch", "--verbose")
    assert status == 0
    assert out.count("torch, float32 ") >= len(load_golden(golden).cases)
    for arguments, words in (
        ((tiny_graph, "--precision", "bf16"), "--device and --precision go with --backend"),
        ((tiny_graph, "--backend", "onnxruntime", "--ckpt", tiny_checkpoint_path), "--backend excludes --ckpt"),
    ):
        status, _, err = run_main(main, *arguments)
        assert status == 2
        assert words in err


def test_the_fold_of_the_check_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((2, 3, 5, 5))
    folded = deployed_weights({"decoder.up.0.conv.weight": weight}, "cpu")["decoder.up.0.conv.weight"]
    x = rng.standard_normal((3, 6, 6))
    up = np.pad(x.repeat(2, 1).repeat(2, 2), ((0, 0), (2, 2), (2, 2)))
    low = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    for channel, row, column in [(0, 0, 0), (1, 5, 8), (0, 11, 11), (1, 4, 7)]:
        wanted = (weight[channel] * up[:, row : row + 5, column : column + 5]).sum()
        part = folded[4 * channel + 2 * (row % 2) + column % 2]
        found = (part * low[:, row // 2 : row // 2 + 3, column // 2 : column // 2 + 3]).sum()
        assert found == pytest.approx(wanted, abs=1e-12)


def test_the_output_fold_of_the_check_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 2, 7, 7))
    folded = deployed_weights({"decoder.to_rgb.weight": weight}, "cpu")["decoder.to_rgb.conv.weight"]
    low = rng.standard_normal((2, 2, 2, 5, 6))  # channel, phase of rows, phase of columns, rows, columns
    pixels = low.transpose(0, 3, 1, 4, 2).reshape(2, 10, 12)
    padded = np.pad(pixels, ((0, 0), (3, 3), (3, 3)))
    halves = np.pad(low.reshape(8, 5, 6), ((0, 0), (2, 2), (2, 2)))
    for channel, row, column in [(0, 0, 0), (1, 9, 8), (2, 3, 11), (1, 4, 7)]:
        wanted = (weight[channel] * padded[:, row : row + 7, column : column + 7]).sum()
        (i, a), (j, b) = divmod(row + 1, 2), divmod(column + 1, 2)
        found = (folded[4 * channel + 2 * a + b] * halves[:, i : i + 4, j : j + 4]).sum()
        assert found == pytest.approx(wanted, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("face", ["uint8", "tensor"])
def test_a_graph_of_one_size_and_batch(tiny_checkpoint_path: Path, tmp_path: Path, face: str) -> None:
    options = GraphOptions("float32", "cpu", face, size=(64, 96), batch=3)
    result = export_graph(load_checkpoint(tiny_checkpoint_path), options)
    assert result.parity.failures == 0
    assert {case.image.shape for case in result.golden.cases} == {(3, 64, 96, 3)}
    backend = OnnxRuntimeBackend(result.model.SerializeToString())
    assert str(backend.fixed) == "batch 3, width 96, height 64"
    small, hole = np.zeros((1, 64, 96, 3), np.uint8), np.ones((1, 64, 96), np.bool_)
    with pytest.raises(ValueError, match="the graph takes batch 3, width 96, height 64, got batch 1"):
        backend.run_pixels(small, hole)
    save_golden(tmp_path / "g.npz", result.golden)
    assert check_graph_parity(result.model.SerializeToString(), load_golden(tmp_path / "g.npz"))[0].passed


@pytest.mark.slow
def test_golden_cases_of_another_size_are_refused(tiny_graph: Path, tiny_checkpoint_path: Path) -> None:
    model = float_graph(
        load_checkpoint(tiny_checkpoint_path), precision="float32", target="cpu", face="uint8", size=(128, 192)
    )
    with pytest.raises(ParityError, match="expected the golden file of this very export"):
        check_graph_parity(model.SerializeToString(), load_golden(golden_path(tiny_graph)))


def test_the_sheet(tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, tiny_graph, "--sheet", tmp_path / "s.png") == 0
    assert read_picture(tmp_path / "s.png").rgb.shape[1] == 4 * 532 + 4


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing.onnx"], 1, "ARTIFACT: missing.onnx: no such file"),
        (["text.onnx"], 1, "--golden: text.golden.npz: no such file"),
        (["text.onnx", "--golden", "a", "--ckpt", "b"], 2, "--golden and --ckpt exclude each other"),
        (["text.onnx", "--model-name", "other"], 2, "--token-file and --model-name go with --url"),
        (["--url", "http://localhost:1", "--device", "cpu"], 2, "--url goes with --golden, --model-name and"),
        (["--url", "http://localhost:1", "--structure", "require"], 2, "--url goes with --golden, --model-name and"),
        (["text.engine", "--structure", "require"], 2, "--structure is for graphs"),
        (["text.txt"], 1, "text.txt: expected a graph (.onnx), a checkpoint (.pt) or an engine (.engine, .plan, .trt)"),
        (["text.onnx", "--sheet", "s.gif"], 1, "--sheet: s.gif: unknown picture format"),
        (["text.onnx", "--ckpt", "missing.pt"], 1, "ARTIFACT: text.onnx: is not an ONNX file"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_main: RunMain,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("text.onnx", "text.txt"):
        (tmp_path / name).write_text("hello")
    actual_status, _, errors = run_main(main, *arguments)
    assert actual_status == status
    assert message in errors.splitlines()[-1]


def test_a_golden_file_of_other_weights(
    tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = dataclasses.replace(load_golden(golden_path(tiny_graph)), weights_sha256="0")
    save_golden(tmp_path / "other.golden.npz", other)
    assert run(monkeypatch, tiny_graph, "--golden", tmp_path / "other.golden.npz") == 1
    assert "different weights" in capsys.readouterr().err
