"""What an engine may be made of and compared with, and what may be replaced by one."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import SHIPPED_GRAPH, SHIPPED_INT8_GRAPH, BackendOptions
from cisi_runtime.backends.tensorrt import EngineShape, TensorRtBackend
from cisi_runtime.building.cache import write_engine
from cisi_runtime.cli.build import _profile_of_ranges
from cisi_runtime.engines.options import Size
from cisi_runtime.engines.sidecar import Sidecar, load_engine, sidecar_path
from cisi_runtime.errors import EngineError, ParityError
from cisi_runtime.parity import checks
from cisi_runtime.parity.golden import golden_path, load_golden
from tests.support.build_command import failure


def test_a_graph_that_was_changed_since_its_export_is_refused(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "tiny.engine"
    changed = tmp_path / "changed.onnx"
    model = onnx.load(graph)
    bias = next(item for item in model.graph.initializer if item.name.endswith("bias"))
    values = onnx.numpy_helper.to_array(bias) + np.asarray(0.5, dtype=onnx.numpy_helper.to_array(bias).dtype)
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    changed.write_bytes(model.SerializeToString())
    assert "changed.onnx: it was changed after its export" in failure(changed, "-o", out)
    foreign = tmp_path / "foreign.onnx"
    shutil.copy(graph, foreign)
    shutil.copy(golden_path(SHIPPED_GRAPH), golden_path(foreign))
    assert "graph and golden file come from different weights" in failure(foreign, "-o", out)
    assert not out.exists()


@pytest.mark.usefixtures("graph")  # skips without a library to build with
def test_an_int8_graph_for_cpus_is_no_source(tmp_path: Path) -> None:
    out = tmp_path / "small.engine"
    message = failure(SHIPPED_INT8_GRAPH, "-o", out)
    assert "is an INT8 graph for CPUs, expected one for TensorRT: cisi-calibrate --target tensorrt" in message
    assert not out.exists()


def test_only_an_engine_is_replaced(graph: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "best.pt"
    checkpoint.write_text("weights")
    for name in ("best.pt", "best.golden.npz", "best.onnx"):
        assert "expected a name that ends in .engine, .plan, .trt" in failure(graph, "-o", tmp_path / name)
    assert checkpoint.read_text() == "weights"


def test_a_golden_file_of_another_export_is_refused(
    made: tuple[bytes, Sidecar], tiny_graph: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.engine"
    write_engine(path, *made)
    golden = load_golden(golden_path(tiny_graph))
    assert made[1].golden_sha256 == golden.sha256
    cut = dataclasses.replace(golden, cases=golden.cases[:1])
    with pytest.raises(ParityError, match=r"tiny.engine: the golden file is not the one that .* was exported with"):
        checks._engine_comparisons(PaintsGrey(made[1]), path, cut)


@pytest.mark.parametrize("check", ["file", "backend"])
def test_an_engine_is_compared_on_the_cases_that_it_takes(
    made: tuple[bytes, Sidecar], tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    path = tmp_path / "tiny.engine"
    write_engine(path, *made)
    golden = load_golden(golden_path(tiny_graph))
    engine = PaintsGrey(made[1])
    assert not all(engine.fixed.accepts(case.image.shape) for case in golden.cases)
    monkeypatch.setattr(TensorRtBackend, "open", lambda _path: engine)
    monkeypatch.setattr(checks, "open_backend", lambda _path, _options: (engine, "for a test"))
    if check == "file":
        report = checks.check_file_parity(path, golden)
    else:
        report = checks.check_backend_parity(path, golden, BackendOptions("tensorrt"))
    taken = [case.name for case in golden.cases if engine.fixed.accepts(case.image.shape)]
    assert [item.case for item in report.comparisons] == taken
    assert not report.passed


class PaintsGrey(Backend):
    """Stands in for an engine, which needs a GPU: it takes what the engine takes, and fills every hole with grey."""

    def __init__(self, sidecar: Sidecar) -> None:
        super().__init__("tensorrt-rtx", sidecar.contract, EngineShape(profile=sidecar.options.profile))

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        completed = image.copy()
        completed[hole_mask > 0] = 7
        return completed

    def _close(self) -> None:
        pass


def test_a_sidecar_names_a_file_and_no_path(made: tuple[bytes, Sidecar], tmp_path: Path) -> None:
    path = tmp_path / "tiny.engine"
    write_engine(path, *made)
    for name in ("../tiny.onnx", "a/b.onnx", "", ".."):
        sidecar_path(path).write_text(json.dumps(json.loads(made[1].to_json()) | {"graph": name}))
        with pytest.raises(EngineError, match="expected the name of a file"):
            load_engine(path)


def test_the_smallest_size_moves_the_others(graph: Path, tmp_path: Path) -> None:
    profile = _profile_of_ranges({"min": "8x64x1024"})
    assert (profile.min, profile.opt, profile.max) == (Size(8, 1024, 64), Size(8, 1024, 256), Size(8, 1024, 512))
    assert "expected each capability once" in failure(
        graph, "-o", tmp_path / "t.engine", "--capability", "8.9", "--capability", "8.9"
    )
