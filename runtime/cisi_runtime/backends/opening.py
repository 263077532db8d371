"""The backend for a file, by what kind of file it is."""

from __future__ import annotations

from pathlib import Path

from cisi_runtime.backends.base import Backend


def is_engine(path: Path) -> bool:
    """Engines are the files that are not graphs: TensorRT's users call them .engine, .plan or .trt."""
    return path.suffix != ".onnx"


def open_backend(path: Path, *, threads: int = 0) -> Backend:
    """ONNX Runtime on the CPU for a graph, TensorRT for an engine; threads: as `OnnxRuntimeBackend`, which an engine
    does not use. Raises what the backends raise."""
    if is_engine(path):
        from cisi_runtime.backends.tensorrt import TensorRtBackend

        return TensorRtBackend.open(path)
    from cisi_runtime.backends.ort import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, threads=threads)
