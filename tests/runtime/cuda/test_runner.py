"""Buffers, streams and captured graphs, run through cuda-bindings against a stand-in for the CUDA driver."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cisi_runtime.cuda.driver import find_gpu
from cisi_runtime.errors import CudaError
from tests.support.networks import ROOT
from tests.support.shared import TIMEOUT_S

HERE = ROOT / "tests" / "support"


def has_gpu() -> bool:
    try:
        find_gpu()
    except CudaError:
        return False
    return True


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that is to find the stand-in in the place of the driver."""
    pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: pip install 'cisi-net[rtx]'")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler for the stand-in for the CUDA driver: apt-get install gcc")
    folder = tmp_path_factory.mktemp("driver")
    source = HERE / "cuda_stand_in.c"
    program = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*program, "-o", str(folder / "libcuda.so.1"), str(source)], check=True, timeout=TIMEOUT_S)
    (folder / "trace").touch()
    return os.environ | {"LD_LIBRARY_PATH": str(folder), "CUDA_STAND_IN_TRACE": str(folder / "trace")}


def rehearse(program: str, environment: dict[str, str], *arguments: Path) -> dict[str, Any]:
    command = [sys.executable, str(HERE / program), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=False)
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def found(stand_in: dict[str, str], tiny_graph: Path) -> dict[str, Any]:
    return rehearse("cuda_rehearsal.py", stand_in, tiny_graph)


def test_the_gpu_is_found(found: dict[str, Any]) -> None:
    assert found["gpu"] == "stand-in card (SM 8.9, driver for CUDA 13.0)"


def test_results_are_the_same_bytes(found: dict[str, Any]) -> None:
    """In any order of shapes, from threads, from device memory, and with work that is not captured."""
    assert found["same bytes"] == [True] * 6
    assert found["same from threads"] == [True] * 20
    assert found["same on device"] is True
    assert found["same when bound"] == [True] * 3
    assert found["same with PyCUDA"] == [True] * 6


def test_the_hot_loop_launches_and_waits_once(found: dict[str, Any]) -> None:
    """Nothing is allocated, planned or captured after the warm-up."""
    assert found["plans after warm-up"] == found["plans"] == 3
    assert found["hot loop"] == ["cuGraphLaunch", "cuStreamSynchronize"] * 6
    assert found["on device"] == ["cuMemcpyDtoDAsync"] * 2 + ["cuGraphLaunch", "cuStreamSynchronize"]
    waiting = ["cuEventCreate", "cuEventRecord", "cuStreamWaitEvent", "cuEventDestroy"]
    assert found["behind the caller's stream"] == waiting + found["on device"]
    copies_in, copies_out = ["cuMemcpyHtoDAsync"] * 2, ["cuMemcpyDtoHAsync"]
    assert found["hot loop without capture"] == [*copies_in, "cuLaunchHostFunc", *copies_out, "cuStreamSynchronize"]


def test_everything_is_freed(found: dict[str, Any]) -> None:
    # Eleven shapes, of which eight are kept, with two graphs each.
    assert found["graphs freed"] == 6
    # Image, mask and result, and what the rehearsal itself took.
    assert found["freed"] == {"cuMemFree": 4, "cuMemFreeHost": 3, "cuStreamDestroy": 1}
    assert found["freed while a result is held"] == []
    assert found["freed when dropped"] == {"cuMemFree": 3, "cuMemFreeHost": 3, "cuStreamDestroy": 1}
    assert found["freed by PyCUDA"] == {"cuMemFree": 3, "cuMemFreeHost": 3, "cuStreamDestroy": 1}


@pytest.mark.skipif(has_gpu(), reason="tests what happens without a GPU; this machine has one")
def test_without_a_driver() -> None:
    pytest.importorskip("cuda.bindings", reason="needs cuda-bindings: pip install 'cisi-net[rtx]'")
    with pytest.raises(CudaError, match="cuInit: the NVIDIA driver is not installed, or too old"):
        find_gpu()


def test_an_engine_behind_the_backend(
    stand_in: dict[str, str],
    tiny_graphs: dict[tuple[str, str, str], Path],
    tiny_graph: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of `TensorRtBackend` but TensorRT, in whose place stands a module with the calls that it uses."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx: pip install 'cisi-net[rtx]'")
    from cisi_runtime.building.make import make_engine
    from cisi_runtime.engines.options import BuildOptions

    monkeypatch.setenv("CISI_CACHE", str(tmp_path / "cache"))
    graph = tiny_graphs["float16", "tensorrt", "uint8"]
    made = make_engine(graph, tmp_path / "tiny.engine", BuildOptions())
    assert made.sidecar.parity is None or has_gpu()
    environment = stand_in | {"CISI_CACHE": str(tmp_path / "cache")}
    seen = rehearse("tensorrt_rehearsal.py", environment, graph, tmp_path / "tiny.engine", tiny_graph)
    # From the cache, and compared with the golden file on the "card" this time.
    assert seen["from cache"] is True
    assert seen["parity"].startswith("passed: 10 cases")
    assert seen["same bytes"] == [True] * 4
    assert seen["contexts"] == 3
    # What was compiled for the card is kept beside the engine, and given to the next one.
    assert seen["runtime cache"] == [True, True]
    assert seen["without a cache"] is True
    assert "is another network" in seen["planted fault"]
    assert seen["left by the fault"] == []
    assert "built for SM 8.6, this machine has stand-in card (SM 8.9" in seen["wrong card"]
    assert "the engine refuses the shape" in seen["refused shape"]
    assert "the engine's work cannot be captured in a CUDA graph" in seen["not capturable"]
    assert "image: the graph takes BATCHxWIDTHxHEIGHT 1x64x64 to 4x512x512" in seen["too large"]


def test_the_stand_in_module_has_no_call_that_the_real_one_lacks() -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx: pip install 'cisi-net[rtx]'")
    used = {
        "Runtime": ["deserialize_cuda_engine"],
        "ICudaEngine": ["create_execution_context", "create_runtime_config", "get_device_memory_size_for_profile_v2"],
        "ExecutionContextAllocationStrategy": ["USER_MANAGED"],
        "IRuntimeConfig": [
            "set_execution_context_allocation_strategy",
            "create_runtime_cache",
            "set_runtime_cache",
            "dynamic_shapes_kernel_specialization_strategy",
        ],
        "IRuntimeCache": ["serialize", "deserialize"],
        "IExecutionContext": [
            "set_input_shape",
            "set_tensor_address",
            "infer_shapes",
            "execute_async_v3",
            "set_device_memory",
            "is_stream_capturable",
        ],
        "DynamicShapesKernelSpecializationStrategy": ["EAGER"],
        "ILogger": ["ERROR", "INTERNAL_ERROR"],
    }
    for name, members in used.items():
        for member in members:
            assert hasattr(getattr(trt, name), member), f"{name}.{member}"


def test_cuda_provider_is_asked_for_and_not_there(tiny_graph: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider; the test is about one without")
    from cisi_runtime.backends.ort_cuda import OnnxRuntimeCudaBackend

    with pytest.raises(CudaError, match=r"has no CUDAExecutionProvider: .*'cisi-net\[gpu\]'"):
        OnnxRuntimeCudaBackend(tiny_graph)


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="needs an NVIDIA GPU: run `pytest -m gpu` on a machine with one")
def test_the_runner_on_a_gpu() -> None:
    """A copy on the device in the place of a kernel: pixels go in and come out, captured, in several shapes."""
    import numpy as np

    from cisi_runtime.cuda.memory import open_memory
    from cisi_runtime.cuda.runner import Runner, Tensor

    memory, pixels = open_memory(), np.dtype(np.uint8)

    def plan(tensors: Any, addresses: Any) -> Any:
        return lambda _stream: memory.copy_on_device(addresses["out"], addresses["in"], tensors[0].nbytes)

    runner = Runner(memory, [Tensor("in", (1 << 20,), pixels)], [Tensor("out", (1 << 20,), pixels)], plan)
    rng = np.random.default_rng(0)
    for size in (1000, 1 << 20, 1000, 77):
        given = rng.integers(0, 256, size, dtype=np.uint8)
        (result,) = runner.run({"in": given}, [Tensor("out", (size,), pixels)])
        assert np.array_equal(result, given)
    runner.close()


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="needs an NVIDIA GPU: run `pytest -m gpu` on a machine with one")
def test_onnx_runtime_on_a_gpu(tiny_graph: Path) -> None:
    import numpy as np
    import onnxruntime

    from cisi_runtime.backends.ort import OnnxRuntimeBackend
    from cisi_runtime.backends.ort_cuda import OnnxRuntimeCudaBackend

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("needs ONNX Runtime with the CUDA provider: pip install 'cisi-net[gpu]'")
    backend, reference = OnnxRuntimeCudaBackend(tiny_graph), OnnxRuntimeBackend(tiny_graph)
    rng = np.random.default_rng(0)
    for batch, height, width in [(1, 64, 64), (2, 128, 160), (1, 64, 64)]:
        image = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        mask = np.where(rng.random((batch, height, width)) < 0.3, np.uint8(255), np.uint8(0))
        difference = backend.run(image, mask).astype(int) - reference.run(image, mask)
        assert np.abs(difference).max() <= 1
    backend.close()
