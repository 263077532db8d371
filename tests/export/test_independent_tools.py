"""Tools that are not ours accept the graphs: TensorRT-RTX parses and builds them, Polygraphy's lint finds no error."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from cisi_export.build import float_graph
from cisi_train.checkpoint import load_checkpoint

Graphs = dict[tuple[str, str, str], Path]
BUILDER = Path(__file__).parent / "build_rtx.py"


def needs(module: str, extra: str) -> None:
    pytest.importorskip(module, reason=f"needs {module}: pip install 'cisi-net[{extra}]'")


@pytest.fixture(scope="module")
def static_graphs(tiny_checkpoint_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    checkpoint, folder = load_checkpoint(tiny_checkpoint_path), tmp_path_factory.mktemp("static")
    paths = {}
    for precision in ("float32", "float16"):
        model = float_graph(checkpoint, precision=precision, target="tensorrt", face="uint8", size=(128, 192), batch=2)
        paths[precision] = folder / f"{precision}.onnx"
        paths[precision].write_bytes(model.SerializeToString())
    return paths


def build(path: Path, *arguments: str) -> int:
    program = [sys.executable, str(BUILDER), str(path), *arguments]
    result = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return int(result.stdout.splitlines()[0])


@pytest.mark.parametrize(
    "key", [("float16", "tensorrt", "uint8"), ("float32", "tensorrt", "tensor")], ids=["float16", "float32"]
)
def test_rtx_builds_dynamic_graphs(tiny_graphs: Graphs, key: tuple[str, str, str]) -> None:
    needs("tensorrt_rtx", "rtx")
    assert build(tiny_graphs[key]) > tiny_graphs[key].stat().st_size


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_rtx_builds_static_graphs(static_graphs: dict[str, Path], precision: str) -> None:
    needs("tensorrt_rtx", "rtx")
    assert build(static_graphs[precision], "static") > static_graphs[precision].stat().st_size


def test_the_build_can_fail(tiny_graphs: Graphs, tmp_path: Path) -> None:
    needs("tensorrt_rtx", "rtx")
    model = onnx.load(tiny_graphs["float16", "tensorrt", "uint8"])
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.op_type = "Convolution"
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    result = subprocess.run(
        [sys.executable, str(BUILDER), str(tmp_path / "bad.onnx")], capture_output=True, check=False
    )
    assert result.returncode == 1


@pytest.mark.parametrize(
    "key",
    [("float32", "cpu", "uint8"), ("float32", "cpu", "tensor"), ("float16", "tensorrt", "uint8")],
    ids=lambda key: "-".join(key),
)
def test_polygraphy_finds_no_error(tiny_graphs: Graphs, key: tuple[str, str, str]) -> None:
    needs("polygraphy", "dev")
    sizes = ("1,128,160,3", "1,128,160") if key[2] == "uint8" else ("1,3,128,160", "1,1,128,160")
    program = [str(Path(sys.executable).with_name("polygraphy")), "check", "lint", str(tiny_graphs[key])]
    program += ["--input-shapes", f"image:[{sizes[0]}]", f"hole_mask:[{sizes[1]}]"]
    result = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASSED" in result.stdout
    assert "[E]" not in result.stdout
