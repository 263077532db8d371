"""The backend for a file, by what kind of file it is."""

from __future__ import annotations

from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.errors import GraphError

BACKENDS = ("auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt", "torch")


def is_engine(path: Path) -> bool:
    """Engines are what is neither graph nor checkpoint: TensorRT's users call them .engine, .plan or .trt."""
    return path.suffix not in (".onnx", ".pt")


def takes(backend: str, path: Path) -> bool:
    """Whether a backend runs files of this kind."""
    own = "torch" if path.suffix == ".pt" else "tensorrt" if is_engine(path) else None
    return backend == "auto" or (backend == own if own is not None else backend not in ("torch", "tensorrt"))


def open_backend(path: Path, backend: str = "auto", *, threads: int = 0) -> tuple[Backend, str]:
    """A backend for a graph, an engine or a checkpoint, and what was chosen and why. threads: of those on the CPU,
    0: all cores.

    "auto": TensorRT for an engine, PyTorch on the CPU for a checkpoint, ONNX Runtime on the CPU for a graph. Raises
    GraphError for a backend that does not take such a file, and what the backends raise.
    """
    if backend not in BACKENDS:
        raise GraphError(f"backend {backend}: expected {', '.join(BACKENDS)}")
    if path.suffix == ".pt":
        if backend not in ("auto", "torch"):
            raise GraphError(f"{path}: is a checkpoint, and {backend} does not take it: cisi-export --ckpt {path}")
        return _from_checkpoint(path, threads), f"torch on the CPU: {path.name} is a checkpoint"
    if backend == "torch":
        raise GraphError(f"{path}: is no checkpoint, and torch takes .pt files alone")
    if is_engine(path):
        if backend not in ("auto", "tensorrt"):
            raise GraphError(f"{path}: is no .onnx file, and {backend} takes graphs alone")
        from cisi_runtime.backends.tensorrt import TensorRtBackend

        engine = TensorRtBackend.open(path)
        return engine, f"{engine.name}: {path.name} is an engine"
    if backend == "tensorrt":
        raise GraphError(f"{path}: is a graph; TensorRT runs engines: cisi-build {path}")
    reason = "it was asked for" if backend != "auto" else f"{path.name} is a graph"
    if backend == "openvino":
        from cisi_runtime.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, threads=threads), f"openvino on the CPU: {reason}"
    if backend == "onnxruntime-cuda":
        from cisi_runtime.backends.ort_cuda import OnnxRuntimeCudaBackend

        return OnnxRuntimeCudaBackend(path), f"onnxruntime on the GPU: {reason}"
    from cisi_runtime.backends.ort import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, threads=threads), f"onnxruntime on the CPU: {reason}"


def _from_checkpoint(path: Path, threads: int) -> Backend:
    """By the package that knows PyTorch; this one never imports it."""
    from importlib.metadata import entry_points

    (point,) = entry_points(group="cisi.backends", name="torch")
    backend: Backend = point.load()(path, threads=threads)
    return backend
