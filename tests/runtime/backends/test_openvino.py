"""What only OpenVINO does: a compiled graph for each size, and bfloat16."""

import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from cisi_export.exporting import float_graph
from cisi_export.golden_cases import make_golden
from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH, BackendOptions, open_backend
from cisi_runtime.errors import NO_MEMORY, GraphError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.parity.checks import check_backend_parity
from cisi_runtime.parity.compare import compare_backend
from cisi_runtime.parity.golden import golden_path, load_golden
from cisi_train.checkpoint import load_checkpoint
from tests.support.bf16 import needs_bf16

openvino = pytest.importorskip("openvino", reason="needs openvino: pip install 'cisi-net[openvino]'")

from cisi_runtime.backends.openvino import OpenVinoBackend, _reason  # noqa: E402

Graphs = dict[tuple[str, str, str], Path]
SIZES = [(64, 64), (64, 80), (80, 64), (96, 64), (64, 112), (128, 64)]


def inputs(height: int, width: int, batch: int = 1) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    rng = np.random.default_rng(height * width)
    hole = (rng.random((batch, height, width)) < 0.3).astype(np.uint8) * np.uint8(255)
    return rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8), hole


def test_each_size_is_compiled_once_and_at_most_four_are_kept(tiny_graph: Path) -> None:
    with OpenVinoBackend(tiny_graph, threads=1) as backend:
        assert backend.prepare((1, 256, 256)) is None  # when it was opened
        note = backend.prepare((1, *SIZES[1]))
        assert note is not None
        assert note.startswith("openvino: compiled for 80x64 pixels in ")
        assert backend.prepare((3, *SIZES[1])) is None  # pictures of a batch run one by one
        first = [backend.run(*inputs(*size)) for size in SIZES]
        assert [backend.prepare((1, *size)) is None for size in SIZES[2:]] == [True] * 4
        assert backend.prepare((1, *SIZES[0])) is not None  # it had to go
        again = [backend.run(*inputs(*size)) for size in SIZES]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_what_run_refuses_is_not_compiled(tiny_graph: Path) -> None:
    backend = OpenVinoBackend(tiny_graph, threads=1)
    with pytest.raises(ValueError, match="multiples of 16, 64 or more, got 70x64"):
        backend.prepare((1, 70, 64))
    backend.close()
    with pytest.raises(GraphError, match="the backend is closed"):
        backend.prepare((1, 64, 64))


def test_a_picture_says_that_its_size_was_compiled(tiny_graph: Path) -> None:
    image, hole = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.bool_)
    hole[20:40, 30:60] = True
    with Inpainter(tiny_graph, "openvino", threads=1, detail=False) as inpaint:
        timers = [StageTimer(), StageTimer()]
        for timer in timers:
            inpaint(image, hole, timer)
    assert [len(timer.notes) for timer in timers] == [1, 0]
    assert "compiled for" in timers[0].notes[0]


def test_threads_share_sizes_and_do_not_mix_results(tiny_graph: Path) -> None:
    with OpenVinoBackend(tiny_graph, threads=1) as backend:
        expected = [backend.run(*inputs(*size)) for size in SIZES]
        same: list[bool] = []

        def work(first: int) -> None:
            for number in range(12):
                index = (first + number) % len(SIZES)
                same.append(np.array_equal(backend.run(*inputs(*SIZES[index])), expected[index]))

        threads = [threading.Thread(target=work, args=(number % 3,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert same == [True] * 72


def test_a_graph_of_one_size_and_batch_runs_with_that_batch(tiny_checkpoint_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint_path)
    model = float_graph(checkpoint, precision="float32", target="cpu", face="uint8", size=(64, 96), batch=2)
    golden = make_golden(checkpoint, (64, 96), 2)
    with OpenVinoBackend(model.SerializeToString(), threads=1) as backend:
        assert backend.fixed.sides == (2, 64, 96)
        assert all(item.passed for item in compare_backend("openvino", backend, golden, "float32"))


@needs_bf16
def test_bf16_keeps_its_tolerance_and_is_not_float32(tiny_graph: Path) -> None:
    golden = load_golden(golden_path(tiny_graph))
    report = check_backend_parity(tiny_graph, golden, BackendOptions("openvino", precision="bf16"))
    assert {item.variant for item in report.comparisons} == {"openvino, bf16"}
    assert report.passed
    # Float32 is 62 dB and more from the reference, bfloat16 38 to 46.
    assert min(item.hole_psnr_db for item in report.comparisons) < 50.0
    exact = check_backend_parity(tiny_graph, golden, BackendOptions("openvino"))
    assert min(item.hole_psnr_db for item in exact.comparisons) > 55.0


def test_bf16_on_a_cpu_without_it_is_refused(tiny_graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class OldCpu(openvino.Core):  # type: ignore[misc, name-defined]
        def get_property(self, *names: str) -> object:
            return ["FP32", "INT8"] if names[-1] == "OPTIMIZATION_CAPABILITIES" else super().get_property(*names)

    monkeypatch.setattr("cisi_runtime.backends.openvino.openvino.Core", OldCpu)
    with pytest.raises(GraphError, match="precision bf16: this CPU has no bfloat16 instructions"):
        OpenVinoBackend(tiny_graph, precision="bf16")
    assert isinstance(OpenVinoBackend(tiny_graph), Backend)


def test_bf16_of_an_int8_graph_is_refused() -> None:
    with pytest.raises(GraphError, match="is int8, which gains nothing by bf16, expected float32"):
        OpenVinoBackend(SHIPPED_INT8_GRAPH, precision="bf16")


@pytest.mark.parametrize("backend", ["auto", "onnxruntime"])
def test_bf16_elsewhere_is_refused(tiny_graph: Path, backend: str) -> None:
    with pytest.raises(GraphError, match=f"precision bf16: backend {backend} computes in what tiny.onnx holds"):
        open_backend(tiny_graph, BackendOptions(backend, precision="bf16"))
    with pytest.raises(GraphError, match="precision half: expected stored, bf16"):
        open_backend(tiny_graph, BackendOptions(backend, precision="half"))


def test_an_error_says_the_reason_and_not_a_place_in_the_source(tiny_graph: Path) -> None:
    with pytest.raises(GraphError, match=r"OpenVINO cannot load it: [^:]*INFERENCE_NUM_THREADS"):
        OpenVinoBackend(tiny_graph, threads=-1)
    assert (
        _reason(RuntimeError("Exception from a.cpp:1:\nCheck 'x' failed at b.cpp:2:\nstd::bad_alloc\n\n")) == NO_MEMORY
    )
    assert _reason(RuntimeError("")) == "RuntimeError"
