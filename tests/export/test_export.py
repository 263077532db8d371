import collections
import dataclasses
import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from cisi_export import inference_graph
from cisi_export.cli_export import export, main
from cisi_export.exporting import Export
from cisi_export.golden_cases import make_golden
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.cli.command import run_command
from cisi_runtime.codec import decode_pixels
from cisi_runtime.errors import OutputError, ParityError
from cisi_runtime.parity.checks import check_graph_parity
from cisi_runtime.parity.compare import compare_backend
from cisi_runtime.parity.golden import golden_path, load_golden
from cisi_runtime.parity.verdict import ParityReport
from cisi_train.checkpoint import load_checkpoint
from tests.conftest import RunMain

Graphs = dict[tuple[str, str, str], Path]


def operators(path: Path) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.slow
def test_every_graph_passes_its_golden_file(tiny_graphs: Graphs) -> None:
    for key in (("float32", "cpu", "tensor"), ("float16", "tensorrt", "uint8")):
        path = tiny_graphs[key]
        golden = load_golden(golden_path(path))
        assert {case.image.shape[0] for case in golden.cases} == {1, 2, 3}
        assert {(256, 256), (528, 64), (64, 528)} <= {case.image.shape[1:3] for case in golden.cases}
        assert all(item.passed for item in check_graph_parity(path, golden))


def test_golden_cases_do_test_something(tiny_graph: Path) -> None:
    golden = load_golden(golden_path(tiny_graph))
    for case in golden.cases:
        if case.name == "no hole":
            assert np.array_equal(case.completed, decode_pixels(case.image))
            continue
        hole = np.broadcast_to(case.hole_mask[:, None], case.completed.shape)
        assert case.completed[hole].std() > (0.0 if case.name == "one pixel" else 0.05)
        assert (np.abs(case.completed[hole]) < 0.99).mean() > 0.3
    holes = {case.name: case.hole_mask.mean() for case in golden.cases}
    assert holes["all hole"] == 1.0
    assert 0 < holes["one pixel"] * 128 * 160 < 1.5


def test_a_golden_file_of_other_weights_is_refused(tiny_graph: Path) -> None:
    golden = dataclasses.replace(load_golden(golden_path(tiny_graph)), weights_sha256="other")
    with pytest.raises(ParityError, match="different weights"):
        compare_backend("variant", OnnxRuntimeBackend(tiny_graph), golden, "float32")


def test_lowerings_have_the_operators_that_their_backends_want(tiny_graphs: Graphs) -> None:
    cpu = operators(tiny_graphs["float32", "cpu", "uint8"])
    tensorrt = operators(tiny_graphs["float16", "tensorrt", "uint8"])
    assert cpu["InstanceNormalization"] == 20
    assert tensorrt["InstanceNormalization"] == 0
    assert tensorrt["ReduceMean"] == 40
    for counts in (cpu, tensorrt):
        assert counts["BatchNormalization"] == 0
        assert counts["Resize"] == 0  # folded away
        assert counts["DepthToSpace"] == 2
        assert counts["Conv"] == 28


def test_float16_is_where_it_was_asked_for_and_nowhere_else(tiny_graphs: Graphs) -> None:
    model = onnx.load(tiny_graphs["float16", "tensorrt", "uint8"])
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types |= {initialiser.name: initialiser.data_type for initialiser in model.graph.initializer}
    for node in model.graph.node:
        used = {types[name] for name in (*node.input, *node.output) if name in types}
        if node.op_type == "Conv":
            assert used == {onnx.TensorProto.FLOAT16}
        if node.op_type in ("ReduceMean", "ReduceSum", "Gemm", "Sqrt", "Tanh"):
            assert onnx.TensorProto.FLOAT16 not in used
    # uint8 meets the graph through a cast that is the first or the last node, and is never transposed.
    assert [node.op_type for node in model.graph.node if {"image", "hole_mask"} & set(node.input)] == ["Cast", "Cast"]
    assert [node.op_type for node in model.graph.node if "completed" in node.output] == ["Cast"]


def test_the_contract_is_in_the_graph_and_nothing_of_the_machine(tiny_graph: Path, tiny_checkpoint_path: Path) -> None:
    contract = OnnxRuntimeBackend(tiny_graph).contract
    checkpoint = load_checkpoint(tiny_checkpoint_path)
    assert contract == dataclasses.replace(checkpoint.contract, target="cpu", face="uint8")
    model = onnx.load(tiny_graph)
    assert [entry.key for entry in model.metadata_props] == ["cisi_contract", "cisi_export", "cisi_sha256"]
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    content = tiny_graph.read_bytes()
    assert str(Path(__file__).parent.parent.parent).encode() not in content
    assert b"site-packages" not in content
    assert not (tiny_graph.parent / "tiny.onnx.data").exists()


@pytest.mark.slow
def test_same_checkpoint_same_bytes_from_another_process_and_folder(
    tiny_graph: Path, tiny_checkpoint_path: Path, tmp_path: Path
) -> None:
    # Of the graph alone: the golden file takes longest, and is compared elsewhere.
    code = (
        "import sys, cisi_export.exporting as e, cisi_train.checkpoint as c, pathlib as p; "
        "checkpoint = c.load_checkpoint(p.Path(sys.argv[1]));"
        "graph = e.float_graph(checkpoint, precision='float32', target='cpu', face='uint8');"
        "p.Path('again.onnx').write_bytes(graph.SerializeToString(deterministic=True))"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_checkpoint_path)], cwd=tmp_path, check=True)
    again, first = onnx.load(tmp_path / "again.onnx"), onnx.load(tiny_graph)
    assert again.graph.SerializeToString(deterministic=True) == first.graph.SerializeToString(deterministic=True)
    assert again.metadata_props[0] == first.metadata_props[0]


def test_the_golden_file_is_the_networks_own_float64(tiny_checkpoint_path: Path, tiny_graph: Path) -> None:
    fresh = make_golden(load_checkpoint(tiny_checkpoint_path))
    for case, stored in zip(fresh.cases, load_golden(golden_path(tiny_graph)).cases, strict=True):
        assert np.array_equal(case.image, stored.image)
        assert np.array_equal(case.hole_mask, stored.hole_mask)
        assert np.allclose(case.completed, stored.completed, rtol=0, atol=1e-7)
        assert case.float32_error == pytest.approx(stored.float32_error, abs=1e-5)


@pytest.mark.slow
def test_a_graph_of_one_size_by_the_command(tiny_checkpoint_path: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "t.pt"
    checkpoint.write_bytes(tiny_checkpoint_path.read_bytes())
    arguments = ["--ckpt", str(checkpoint), "--size", "192x128", "--batch", "1"]
    result = CliRunner().invoke(export, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert [line.partition(":")[0] for line in result.stderr.splitlines()] == ["reference", "exporting to ONNX"] + [
        "comparing"
    ] * 4
    assert not set(result.stderr.splitlines()) & set(result.stdout.splitlines())
    graph = tmp_path / "t.192x128.batch1.onnx"
    assert {path.name for path in tmp_path.iterdir()} == {"t.pt", graph.name, "t.192x128.batch1.golden.npz"}
    assert str(OnnxRuntimeBackend(graph).fixed) == "batch 1, width 192, height 128"
    assert {case.image.shape[1:3] for case in load_golden(golden_path(graph)).cases} == {(128, 192)}


def test_a_graph_that_cannot_be_written_takes_no_golden_file_with_it(
    tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old graph names the old one."""
    graph = tmp_path / "t.onnx"
    shutil.copy(tiny_graph, graph)
    shutil.copy(golden_path(tiny_graph), golden_path(graph))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    golden = load_golden(golden_path(graph))
    parity = ParityReport(check_graph_parity(graph, dataclasses.replace(golden, cases=golden.cases[:1])))
    other = Export(onnx.load(graph), dataclasses.replace(golden, weights_sha256="1" * 64), parity)
    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".onnx":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device"):
            other.save(graph)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    other.save(graph)
    assert load_golden(golden_path(graph)).weights_sha256 == "1" * 64


def broken(network: object) -> None:
    """Upsampling folded, then its sub-pixels in the wrong order: a picture shifted by half a pixel here and there."""
    from cisi_export.rewrites import SubPixelConv, fold_upsampling

    fold_upsampling(network)  # type: ignore[arg-type]
    for module in network.modules():  # type: ignore[attr-defined]
        if isinstance(module, SubPixelConv):
            weight = module.conv.weight.data
            module.conv.weight.data = weight.unflatten(0, (-1, 2, 2)).transpose(1, 2).reshape(weight.shape)


def test_what_cannot_be_written_is_said_before_anything_is_exported(
    tiny_checkpoint_path: Path, tiny_graph: Path, tmp_path: Path, run_main: RunMain
) -> None:
    out, golden, ranges = (tmp_path / f"t.{suffix}" for suffix in ("onnx", "golden.npz", "ranges.json"))
    for folder, more in ((golden, []), (ranges, ["--int8", "--calib", tmp_path])):
        folder.mkdir()
        status, said, error = run_main(main, "--ckpt", tiny_checkpoint_path, "--out", out, *more)
        assert (status, said) == (1, "")
        assert f"--out: {folder}: is a folder" in error
        folder.rmdir()
    # Of another graph of the same weights, which takes any size.
    shutil.copy(golden_path(tiny_graph), golden)
    before = golden.read_bytes()
    arguments = ("--ckpt", tiny_checkpoint_path, "--out", out, "--size", 64, "--batch", 1)
    status, said, error = run_main(main, *arguments)
    assert (status, said) == (1, "")
    assert f"--out: {golden}: holds other cases of the same weights" in error
    assert "exporting to ONNX" not in error
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(golden.name, before)]


@pytest.mark.slow
def test_a_broken_rewrite_fails_and_nothing_is_written(
    tiny_checkpoint_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inference_graph, "fold_upsampling", broken)
    arguments = ["--ckpt", tiny_checkpoint_path, "--size", 128, "--batch", 1, "--out", tmp_path / "b.onnx"]
    monkeypatch.setattr(sys, "argv", ["cisi-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        run_command(export, "cisi-export")
    assert stopped.value.code == 1
    captured = capsys.readouterr()
    assert "FAIL" in captured.out
    assert " of 74 comparisons failed" in captured.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fp16", "--target", "cpu"], "CPUs run float16 graphs in float32, and slower; expected --target tensorrt"),
        (["--fp16", "--int8"], "--fp16 and --int8 exclude each other"),
        (["--int8"], "--int8 needs --calib"),
        (["--calib", "x"], "--calib is for --int8"),
        (["--budget-db", "36"], "--budget-db is for --int8"),
        (["--int8", "--calib", "x", "--budget-db", "30"], "--budget-db 30: expected a number from 35 on"),
        (["--size", "100"], "--size 100: expected WIDTHxHEIGHT, multiples of 16 and 64 or more, or dynamic"),
        (["--size", "256x"], "--size 256x: expected WIDTHxHEIGHT"),
        (["--size", "48x64"], "--size 48x64: expected WIDTHxHEIGHT"),
        (["--batch", "0"], "--batch 0: expected a number from 1, or dynamic"),
        (["--batch", "x"], "--batch x: expected a number from 1, or dynamic"),
    ],
)
def test_options_that_do_not_go_together(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(export, ["--ckpt", "c.pt", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--ckpt", "missing.pt"], 1, "--ckpt: missing.pt: no such file"),
        (
            ["--ckpt", "text.pt"],
            1,
            "--ckpt: text.pt: not a checkpoint of cisi-net, expected a file written by cisi-train",
        ),
        (["--ckpt", "text.pt", "--out", "none/x.onnx"], 1, "--out: none/x.onnx: folder none does not exist"),
        (["--ckpt", "text.pt", "--out", "text.pt"], 2, "--out text.pt: expected a name that ends in .onnx"),
        (["--fp16"], 2, "Missing option '--ckpt'"),
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
    (tmp_path / "text.pt").write_text("hello")
    actual_status, _, errors = run_main(main, *arguments)
    assert actual_status == status
    assert len(errors.splitlines()) == 1
    assert message in errors
    assert [path.name for path in tmp_path.iterdir()] == ["text.pt"]
