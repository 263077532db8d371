import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.registry import SHIPPED_GRAPH, SHIPPED_INT8_GRAPH
from cisi_runtime.errors import GraphError
from cisi_runtime.parity import cpu_check
from cisi_runtime.parity.cpu_check import check_on_this_cpu
from cisi_runtime.parity.golden import golden_path, load_golden, save_golden


class Noisy(Backend):
    """The shipped float32 graph that says it is INT8, with noise of some grey levels in the hole."""

    def __init__(self, sigma: float, weights_sha256: str | None = None) -> None:
        self.real = OnnxRuntimeBackend(SHIPPED_GRAPH)
        contract = dataclasses.replace(self.real.contract, precision="int8")
        if weights_sha256 is not None:
            contract = dataclasses.replace(contract, weights_sha256=weights_sha256)
        super().__init__("noisy", contract, FixedShape())
        self.sigma, self.calls = sigma, 0

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.calls += 1
        completed = self.real.run(image, hole_mask).astype(np.float64)
        noise = np.random.default_rng(0).normal(0, self.sigma, completed.shape)
        noisy = np.clip(np.rint(completed + noise), 0, 255).astype(np.uint8)
        return np.where(hole_mask[..., None] >= 128, noisy, image)

    def _close(self) -> None:
        self.real.close()


def test_an_int8_graph_that_this_cpu_runs_right() -> None:
    backend = Noisy(2.0)  # 42 dB
    assert check_on_this_cpu(backend, SHIPPED_GRAPH) is None
    assert backend.calls == 1


def test_an_int8_graph_that_this_cpu_runs_wrong_is_refused() -> None:
    with pytest.raises(GraphError, match=r"on this CPU it is 2\d\.\d dB from the reference, .* --reduce-range"):
        check_on_this_cpu(Noisy(12.0), SHIPPED_GRAPH)


def test_float32_graphs_are_not_checked() -> None:
    backend = Noisy(0.0)
    backend.contract = dataclasses.replace(backend.contract, precision="float32")
    assert check_on_this_cpu(backend, SHIPPED_GRAPH) is None
    assert backend.calls == 0


def test_without_its_golden_file_nothing_is_known(tmp_path: Path) -> None:
    warning = check_on_this_cpu(Noisy(0.0), tmp_path / "small.int8.cpu.onnx")
    assert warning is not None
    assert "small.golden.npz is not beside it" in warning


def test_a_golden_file_of_other_weights(tmp_path: Path) -> None:
    golden = load_golden(golden_path(SHIPPED_GRAPH))
    save_golden(tmp_path / "small.golden.npz", dataclasses.replace(golden, weights_sha256="0" * 64))
    with pytest.raises(GraphError, match="belongs to other weights"):
        check_on_this_cpu(Noisy(0.0), tmp_path / "small.int8.cpu.onnx")


class Counting(OnnxRuntimeBackend):
    """The shipped INT8 graph, which counts its calls."""

    calls = 0

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.calls += 1
        return super()._run(image, hole_mask)


@pytest.fixture
def counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setenv("CISI_CACHE", str(tmp_path / "cache"))
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("model name: one\nflags: avx2 avx512_vnni\n\nmodel name: one\n")
    monkeypatch.setattr(cpu_check, "_CPU_INFO", cpu)
    return Counting(SHIPPED_INT8_GRAPH, threads=1)


def test_a_check_that_was_passed_is_remembered(counting: Counting, tmp_path: Path) -> None:
    for _ in range(3):
        assert check_on_this_cpu(counting, SHIPPED_INT8_GRAPH) is None
    assert counting.calls == 1
    (record,) = (tmp_path / "cache" / "checks").iterdir()
    assert record.read_text().startswith("small.int8.cpu.onnx: 4")
    if os.name == "posix":
        assert record.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("what", ["cpu", "graph", "golden", "version"])
def test_what_a_check_depends_on_makes_it_run_again(
    counting: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    graph, golden = tmp_path / "small.int8.cpu.onnx", tmp_path / "small.golden.npz"
    graph.write_bytes(SHIPPED_INT8_GRAPH.read_bytes())
    golden.write_bytes(golden_path(SHIPPED_GRAPH).read_bytes())
    check_on_this_cpu(counting, graph)
    if what == "cpu":
        (tmp_path / "cpuinfo").write_text("model name: one\nflags: avx2\n")
    elif what == "graph":
        graph.write_bytes(graph.read_bytes() + b"\0")
    elif what == "golden":
        fewer = dataclasses.replace(load_golden(golden), cases=load_golden(golden).cases[:2])
        golden.unlink()
        save_golden(golden, fewer)
    else:
        monkeypatch.setattr("onnxruntime.__version__", "0.0")
    check_on_this_cpu(counting, graph)
    assert counting.calls == 2


def test_an_unknown_cpu_is_checked_every_time(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_check, "_CPU_INFO", Path("/no/such/file"))
    for _ in range(2):
        check_on_this_cpu(counting, SHIPPED_INT8_GRAPH)
    assert counting.calls == 2


def test_a_folder_that_may_not_be_entered_is_no_error(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.stat

    def stat(path: Any, *arguments: Any, **more: Any) -> os.stat_result:
        if "checks" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **more)

    check_on_this_cpu(counting, SHIPPED_INT8_GRAPH)
    monkeypatch.setattr(os, "stat", stat)
    check_on_this_cpu(counting, SHIPPED_INT8_GRAPH)
    assert counting.calls == 2


def test_records_of_another_user_are_not_believed(counting: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    check_on_this_cpu(counting, SHIPPED_INT8_GRAPH)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    check_on_this_cpu(counting, SHIPPED_INT8_GRAPH)
    assert counting.calls == 2


def test_a_check_that_failed_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CISI_CACHE", str(tmp_path / "cache"))
    backend = Noisy(12.0)
    backend.name = "onnxruntime"
    for calls in (1, 2):
        with pytest.raises(GraphError, match="from the reference"):
            check_on_this_cpu(backend, SHIPPED_INT8_GRAPH)
        assert backend.calls == calls
    assert not (tmp_path / "cache").exists()
