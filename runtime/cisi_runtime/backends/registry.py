"""The backend for a file, by what kind of file it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.errors import BackendError

BACKENDS = ("auto", "onnxruntime", "openvino", "tensorrt", "torch")
DEVICES = ("auto", "cpu", "cuda")
# Those that run graphs on threads of the CPU and load quickly, so that each process may have one for itself.
CPU_BACKENDS = ("onnxruntime", "openvino")
# What a backend computes in: what the file holds, or bfloat16 where a CPU has it.
PRECISIONS = ("stored", "bf16")
# The graphs that ship with the package: float32, and the same in INT8. Their golden file lies beside them.
SHIPPED_GRAPH = Path(__file__).parent.parent / "weights" / "small.onnx"
SHIPPED_INT8_GRAPH = SHIPPED_GRAPH.with_name("small.int8.cpu.onnx")
# Modules of backends, and the extra that brings each.
_EXTRAS = {"onnxruntime": "cpu", "openvino": "openvino", "torch": "train"}


@dataclasses.dataclass(frozen=True)
class BackendOptions:
    """What a file is run with.

    backend: one of `BACKENDS`. "auto" is TensorRT for an engine, PyTorch for a checkpoint, ONNX Runtime for a graph.
    device: one of `DEVICES`. "auto" is the GPU for an engine, which runs nowhere else, and the CPU for all others.
    precision: one of `PRECISIONS`. "bf16" is for OpenVINO, and for checkpoints in PyTorch.
    threads: of backends on the CPU, 0 for all cores.
    """

    backend: str = "auto"
    device: str = "auto"
    precision: str = "stored"
    threads: int = 0

    def needs_gpu(self, path: Path | None) -> bool:
        """Whether this file, or what ships (None), runs on a GPU."""
        return self.device == "cuda" or self.backend == "tensorrt" or (path is not None and is_engine(path))


def is_engine(path: Path) -> bool:
    """Whether a file is taken for an engine: what is neither graph nor checkpoint (.engine, .plan, .trt)."""
    return path.suffix not in (".onnx", ".pt")


def backend_accepts(backend: str, path: Path) -> bool:
    """Whether a backend runs files of this kind."""
    required = "torch" if path.suffix == ".pt" else "tensorrt" if is_engine(path) else None
    if backend == "auto":
        return True
    return backend == required if required is not None else backend not in ("torch", "tensorrt")


def device_accepts(device: str, backend: str, path: Path) -> bool:
    """Whether a backend runs a file on a device of `DEVICES`."""
    if is_engine(path):
        return device != "cpu"
    return device != "cuda" or backend != "openvino"


def precision_accepts(precision: str, backend: str, path: Path) -> bool:
    """Whether a backend runs a file in a precision of `PRECISIONS`."""
    return precision != "bf16" or backend == "openvino" or path.suffix == ".pt"


def threads_apply(options: BackendOptions, path: Path | None) -> bool:
    """Whether a number of threads changes anything. Engines, and graphs on a GPU, have none. path: None for what
    ships."""
    return (path is not None and path.suffix == ".pt") or not options.needs_gpu(path)


def open_backend(path: Path, options: BackendOptions | None = None) -> tuple[Backend, str]:
    """Open a graph, an engine or a checkpoint. Returns the backend, and in words which one was chosen and why.

    options: None for the defaults.

    Raises BackendError for a backend that is not installed, or does not take such a file, device or precision, and what
    the backends raise.
    """
    options = options or BackendOptions()
    try:
        return _open(path, options)
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        raise BackendError(f"{error.name} is not installed: pip install 'cisi-net[{_EXTRAS[error.name]}]'") from error


def _open(path: Path, options: BackendOptions) -> tuple[Backend, str]:
    _check_options(path, options)
    name, on_gpu = options.backend, options.needs_gpu(path)
    where = "on the GPU" if on_gpu else "on the CPU"
    wanted = " in bf16, as asked" if options.precision == "bf16" else ""
    if path.suffix == ".pt":
        return _open_checkpoint(path, options), f"{path.name}: torch {where}{wanted}, which runs checkpoints"
    if is_engine(path):
        from cisi_runtime.backends.tensorrt import TensorRtBackend

        engine = TensorRtBackend.open(path)
        return engine, f"{path.name}: {engine.name}, which runs engines"
    reason = wanted or (", as asked" if name != "auto" or options.device != "auto" else ", the default for graphs")
    if name == "openvino":
        from cisi_runtime.backends.openvino import OpenVinoBackend

        opened = OpenVinoBackend(path, threads=options.threads, precision=options.precision)
        return opened, f"{path.name}: openvino {where}{reason}"
    if on_gpu:
        from cisi_runtime.backends.ort_cuda import OnnxRuntimeCudaBackend

        return OnnxRuntimeCudaBackend(path), f"{path.name}: onnxruntime {where}{reason}"
    from cisi_runtime.backends.ort import OnnxRuntimeBackend

    return OnnxRuntimeBackend(path, threads=options.threads), f"{path.name}: onnxruntime {where}{reason}"


def _check_options(path: Path, options: BackendOptions) -> None:
    """Raise BackendError for names that do not exist, and for a file that does not run so."""
    name, device, precision = options.backend, options.device, options.precision
    for what, value, values in (
        ("precision", precision, PRECISIONS),
        ("backend", name, BACKENDS),
        ("device", device, DEVICES),
    ):
        if value not in values:
            raise BackendError(f"{what} {value}: expected {', '.join(values)}")
    if not precision_accepts(precision, name, path):
        raise BackendError(
            f"precision bf16: backend {name} computes in what {path.name} holds, expected --backend openvino, or a "
            "checkpoint"
        )
    if path.suffix == ".pt" and name not in ("auto", "torch"):
        raise BackendError(f"{path}: is a checkpoint, and {name} does not take it: cisi-export --ckpt {path}")
    if path.suffix != ".pt" and name == "torch":
        raise BackendError(f"{path}: is not a checkpoint, and torch takes only .pt files")
    if is_engine(path) and name not in ("auto", "tensorrt"):
        raise BackendError(f"{path}: is not an .onnx file, and {name} takes only graphs")
    if not is_engine(path) and name == "tensorrt":
        raise BackendError(f"{path}: is a graph; TensorRT runs engines: cisi-build {path}")
    if not device_accepts(device, name, path):
        runs = "engines run on a GPU" if is_engine(path) else f"{name} runs on the CPU"
        raise BackendError(f"device {device}: {runs}, expected --device {'cuda' if is_engine(path) else 'cpu'}")


def _open_checkpoint(path: Path, options: BackendOptions) -> Backend:
    """Through the entry point of the training package, because this package never imports PyTorch."""
    from importlib.metadata import entry_points

    (point,) = entry_points(group="cisi.backends", name="torch")
    device = "cuda" if options.needs_gpu(path) else "cpu"
    backend: Backend = point.load()(path, threads=options.threads, precision=options.precision, device=device)
    return backend
