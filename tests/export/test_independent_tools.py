"""Tools that are not ours accept the graphs: TensorRT-RTX parses and builds them, Polygraphy's lint finds no error."""

import subprocess
import sys
from pathlib import Path

import pytest

from cisi_export.exporting import float_graph
from cisi_runtime.building.process import build_engine
from cisi_runtime.engines.options import BuildOptions
from cisi_train.checkpoint import load_checkpoint
from tests.support.shared import TIMEOUT_S

pytestmark = pytest.mark.slow

ADA = BuildOptions(capabilities=("8.9",))
Graphs = dict[tuple[str, str, str], Path]


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


@pytest.mark.parametrize(
    "key", [("float16", "tensorrt", "uint8"), ("float32", "tensorrt", "tensor")], ids=["float16", "float32"]
)
def test_rtx_builds_dynamic_graphs(tiny_graphs: Graphs, key: tuple[str, str, str]) -> None:
    needs("tensorrt_rtx", "rtx")
    built = build_engine(tiny_graphs[key], ADA)
    audit = built.audit
    assert len(built.engine) > tiny_graphs[key].stat().st_size
    assert audit.mismatches == ()
    assert {item.built for item in audit.convolutions} == {key[0]}


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_rtx_builds_static_graphs(static_graphs: dict[str, Path], precision: str) -> None:
    needs("tensorrt_rtx", "rtx")
    built = build_engine(static_graphs[precision], ADA)
    assert len(built.engine) > static_graphs[precision].stat().st_size
    assert {item.built for item in built.audit.convolutions} == {precision}


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
    result = subprocess.run(program, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "PASSED" in result.stdout
    assert "[E]" not in result.stdout
