"""The backend for a file, by what kind of file it is."""

from __future__ import annotations

from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.errors import BackendError

BACKENDS = ("auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt", "torch")
# Those that run graphs on threads of the CPU and load quickly, so that each process may have one for itself.
CPU_BACKENDS = ("onnxruntime", "openvino")
# What a backend computes in: what the file holds, or bfloat16 where a CPU has it.
PRECISIONS = ("stored", "bf16")
# The graphs that ship with the package: float32, and the same in INT8. Their golden file lies beside them.
SHIPPED_GRAPH = Path(__file__).parent.parent / "weights" / "small.onnx"
SHIPPED_INT8_GRAPH = SHIPPED_GRAPH.with_name("small.int8.cpu.onnx")
# Modules of backends, and the extra that brings each.
_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino", "torch": "train"}


def is_engine(path: Path) -> bool:
    """Whether a file is taken for an engine: what is neither graph nor checkpoint (.engine, .plan, .trt)."""
    return path.suffix not in (".onnx", ".pt")


def backend_accepts(backend: str, path: Path) -> bool:
    """Whether a backend runs files of this kind."""
    required = "torch" if path.suffix == ".pt" else "tensorrt" if is_engine(path) else None
    if backend == "auto":
        return True
    return backend == required if required is not None else backend not in ("torch", "tensorrt")


def precision_accepts(precision: str, backend: str, path: Path) -> bool:
    """Whether a backend runs a file in a precision of `PRECISIONS`."""
    return precision != "bf16" or backend == "openvino" or path.suffix == ".pt"


def open_backend(
    path: Path, backend: str = "auto", *, threads: int = 0, precision: str = "stored"
) -> tuple[Backend, str]:
    """Open a graph, an engine or a checkpoint. Returns the backend, and in words which one was chosen and why.

    backend: one of `BACKENDS`. "auto" is TensorRT for an engine, PyTorch on the CPU for a checkpoint, ONNX Runtime on
        the CPU for a graph.
    threads: of backends on the CPU, 0 for all cores.
    precision: one of `PRECISIONS`. "bf16" is for OpenVINO, and for checkpoints in PyTorch.

    Raises BackendError for a backend that is not installed, or does not take such a file or precision, and what the
    backends raise.
    """
    try:
        return _open(path, backend, threads, precision)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise BackendError(f"{error.name} is not installed: pip install 'cisi-net[{_EXTRAS[error.name]}]'") from error


def _open(path: Path, backend: str, threads: int, precision: str) -> tuple[Backend, str]:
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision}: expected {', '.join(PRECISIONS)}")
    if not precision_accepts(precision, backend, path):
        raise BackendError(
            f"precision bf16: backend {backend} computes in what {path.name} holds, expected --backend openvino, or a "
            "checkpoint"
        )
    wanted = " in bf16, as asked" if precision == "bf16" else ""
    if backend not in BACKENDS:
        raise BackendError(f"backend {backend}: expected {', '.join(BACKENDS)}")
    if path.suffix == ".pt":
        if backend not in ("auto", "torch"):
            raise BackendError(f"{path}: is a checkpoint, and {backend} does not take it: cisi-export --ckpt {path}")
        checkpoint = _open_checkpoint(path, threads, precision)
        return checkpoint, f"{path.name}: torch on the CPU{wanted}, which runs checkpoints"
    if backend == "torch":
        raise BackendError(f"{path}: is not a checkpoint, and torch takes only .pt files")
    if is_engine(path):
        if backend not in ("auto", "tensorrt"):
            raise BackendError(f"{path}: is not an .onnx file, and {backend} takes only graphs")
        from cisi_runtime.backends.tensorrt import TensorRtBackend

        engine = TensorRtBackend.open(path)
        return engine, f"{path.name}: {engine.name}, which runs engines"
    if backend == "tensorrt":
        raise BackendError(f"{path}: is a graph; TensorRT runs engines: cisi-build {path}")
    reason = "as asked" if backend != "auto" else "the default for graphs"
    if backend == "openvino":
        from cisi_runtime.backends.openvino import OpenVinoBackend

        opened = OpenVinoBackend(path, threads=threads, precision=precision)
        return opened, f"{path.name}: openvino on the CPU{wanted or f', {reason}'}"
    if backend == "onnxruntime-cuda":
        from cisi_runtime.backends.ort_cuda import OnnxRuntimeCudaBackend

        return OnnxRuntimeCudaBackend(path), f"{path.name}: onnxruntime on the GPU, {reason}"
    from cisi_runtime.backends.ort import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, threads=threads), f"{path.name}: onnxruntime on the CPU, {reason}"


def _open_checkpoint(path: Path, threads: int, precision: str) -> Backend:
    """Through the entry point of the training package, because this package never imports PyTorch."""
    from importlib.metadata import entry_points

    (point,) = entry_points(group="cisi.backends", name="torch")
    backend: Backend = point.load()(path, threads=threads, precision=precision)
    return backend
