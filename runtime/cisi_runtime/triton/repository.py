"""A Triton model repository: what can be served is read and checked, then written completely or not at all."""

from __future__ import annotations

from pathlib import Path

from cisi_runtime.backends.graph import GraphInfo, read_graph
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH, is_engine
from cisi_runtime.engines.sidecar import load_engine, sidecar_path
from cisi_runtime.errors import EngineError, GraphError
from cisi_runtime.files import atomic_file, atomic_folder
from cisi_runtime.parity.golden import golden_path, load_golden
from cisi_runtime.triton.config import NETWORK, PHOTO, ServedNetwork, network_config, photo_config

# Side of the pictures that the network was trained with.
_SIDE = 256
# Pictures at a time through a graph, unless a number is asked for. An engine's profile has one.
_BATCH = 4
# The network of `cisi-photo` beside its model.py, with the file that belongs to it.
PHOTO_GRAPH, PHOTO_ENGINE = "network.onnx", "network.engine"
_MODEL_PY = '''"""Written by cisi-triton. Triton's Python needs cisi-net."""

import triton_python_backend_utils

from cisi_runtime.triton.photo_model import PhotoModel


class TritonPythonModel(PhotoModel):
    """Photographs and masks in, completed photographs out."""

    utils = triton_python_backend_utils
'''


def read_network(model: Path | None = None, max_batch: int | None = None) -> ServedNetwork:
    """A graph, or an engine with its sidecar, that Triton can load.

    model: None for the INT8 graph that ships.
    max_batch: pictures that Triton may put together. None: 4 for a graph, what the profile allows for an engine.

    Raises GraphError, ContractError or EngineError for what Triton could not load.
    """
    model = SHIPPED_INT8_GRAPH if model is None else model
    return _read_engine(model, max_batch) if is_engine(model) else _read_graph(model, max_batch)


def write_repository(
    folder: Path, network: ServedNetwork, *, queue: int = 64, workers: int = 1, photo: bool = True
) -> None:
    """Write the models `cisi`, the network alone, and `cisi-photo`, from file to file.

    folder: must be empty or not exist.
    queue: requests of each model that may wait.
    workers: processes that complete photographs.
    photo: whether `cisi-photo` is written.

    Raises OutputError.
    """
    with atomic_folder(folder) as temporary:
        version = _new_model(temporary / NETWORK, network_config(network, queue))
        _write(version / network.file, network.data)
        if photo:
            version = _new_model(temporary / PHOTO, photo_config(network, queue, workers))
            _write(version / "model.py", _MODEL_PY.encode())
            is_graph = network.capability is None
            copy = version / (PHOTO_GRAPH if is_graph else PHOTO_ENGINE)
            _write(copy, network.data)
            if network.companion is not None:
                _write(golden_path(copy) if is_graph else sidecar_path(copy), network.companion)


def _read_graph(model: Path, max_batch: int | None) -> ServedNetwork:
    if model.suffix == ".pt":
        raise GraphError(f"{model}: is a checkpoint, and Triton runs graphs and engines: cisi-export --ckpt {model}")
    info = read_graph(model)
    contract, fixed = info.contract, info.fixed
    if contract.holds_float16:
        raise GraphError(
            f"{model}: holds float16, which ONNX Runtime's CPU kernels would silently run in float32, expected a "
            f"float32 graph, an int8 graph for CPUs, or a TensorRT engine: cisi-build {model} --flavour tensorrt"
        )
    _check_fixed_batch(model, fixed.batch, max_batch)
    usual = (fixed.height or _SIDE, fixed.width or _SIDE)
    data, companion = info.serialised(), _golden_of(info)
    return ServedNetwork(contract, fixed.sides, max_batch or _BATCH, usual, "model.onnx", data, companion)


def _golden_of(info: GraphInfo) -> bytes | None:
    """The golden file beside an INT8 graph, which `cisi-photo` checks the CPU with; None where there is none."""
    assert isinstance(info.source, Path)
    path = golden_path(info.source)
    if info.contract.precision != "int8" or not path.is_file():
        return None
    if load_golden(path).weights_sha256 != info.contract.weights_sha256:
        raise GraphError(f"{path}: belongs to other weights than {info.label}, expected the golden file of its export")
    return path.read_bytes()


def _read_engine(model: Path, max_batch: int | None) -> ServedNetwork:
    data, sidecar = load_engine(model)
    options, fixed = sidecar.options, sidecar.fixed
    if options.flavour != "tensorrt":
        raise EngineError(
            f"{model}: is an engine of {options.flavour}, and Triton runs TensorRT's; on a machine with the card that "
            f"will run it: cisi-build {sidecar.graph} --flavour tensorrt"
        )
    _check_fixed_batch(model, fixed[0], max_batch)
    profile = options.profile.limited(fixed)
    batch = max_batch or profile.max.batch
    if fixed[0] is None and profile.min.batch > 1:
        # Triton hands on a single request as it is.
        raise EngineError(
            f"{model}: takes {profile.min.batch} pictures or more at a time, expected an engine that takes 1: "
            f"cisi-build {sidecar.graph} --min 1x{profile.min.width}x{profile.min.height}"
        )
    if batch > profile.max.batch:
        raise EngineError(
            f"{model}: takes up to {profile.max.batch} pictures at a time, and {batch} were asked for, expected an "
            f"engine of another profile: cisi-build {sidecar.graph} --max "
            f"{batch}x{profile.max.width}x{profile.max.height}"
        )
    usual = (profile.opt.height, profile.opt.width)
    file, companion = f"sm_{sidecar.capability}.plan", sidecar_path(model).read_bytes()
    return ServedNetwork(
        sidecar.contract, fixed, batch, usual, file, data, companion, sidecar.capability, sidecar.version
    )


def _check_fixed_batch(model: Path, fixed: int | None, max_batch: int | None) -> None:
    if fixed is not None and max_batch is not None:
        raise GraphError(
            f"{model}: takes {fixed} pictures at a time, no more and no less, expected one of any batch, or no number"
        )


def _new_model(folder: Path, config: str) -> Path:
    """A model's folder with its configuration. Returns the folder of version 1."""
    version = folder / "1"
    version.mkdir(parents=True)
    _write(folder / "config.pbtxt", config.encode())
    return version


def _write(path: Path, data: bytes) -> None:
    """Write and sync."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data)
