"""The rungs of the ladder that a graph or engine alone can climb, with its golden file: no PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.ort import OnnxRuntimeBackend, graph_contract, holds_float16
from cisi_runtime.engines.sidecar import load_sidecar
from cisi_runtime.errors import GraphError
from cisi_runtime.golden import Golden
from cisi_runtime.parity import Comparison, check_backend


def graph_rungs(graph: Path | bytes) -> Iterator[tuple[str, Backend]]:
    """Names and backends: ONNX Runtime with its optimisations off, which is the oracle, and on.

    Raises ContractError and GraphError, also for a float16 graph where onnx is not installed.
    """
    contract = graph_contract(graph)
    serialised = runnable(graph if isinstance(graph, bytes) else graph.read_bytes())
    for optimise in (False, True):
        name = f"ONNX {contract.precision}{' emulated' if holds_float16(contract) else ''}"
        backend = OnnxRuntimeBackend(serialised, optimise=optimise)
        yield f"{name}, {'optimised' if optimise else 'as written'}", backend


def check_graph_file(graph: Path | bytes, golden: Golden) -> list[Comparison]:
    """All rungs on all cases. Raises ParityError for a golden file of other weights or of other sizes."""
    precision = graph_contract(graph).precision
    return [item for name, backend in graph_rungs(graph) for item in check_backend(name, backend, golden, precision)]


def check_engine(backend: Backend, golden: Golden, *, tf32: bool) -> list[Comparison]:
    """The cases of a golden file whose sizes an engine takes, none where it takes none of them. tf32: float32
    convolutions may round what they multiply, to as many bits as float16 has. Raises ParityError for a golden file of
    other weights."""
    cases = tuple(case for case in golden.cases if backend.fixed.takes(case.image.shape))
    precision = "float16" if tf32 else backend.contract.precision
    return check_backend(backend.name, backend, dataclasses.replace(golden, cases=cases), precision)


def check_engine_file(path: Path, golden: Golden) -> list[Comparison]:
    """As `check_engine`, for an engine with its sidecar. Raises GraphError when no case is of a size that it takes."""
    from cisi_runtime.backends.tensorrt import TensorRtBackend

    backend = TensorRtBackend.open(path)
    try:
        found = check_engine(backend, golden, tf32=load_sidecar(path).options.tf32)
    finally:
        backend.close()
    if not found:
        raise GraphError(f"{path}: no golden case is of a size that it takes ({backend.fixed})")
    return found


def runnable(serialised: bytes) -> bytes:
    """The graph itself; of one with float16 in it its emulation, because ONNX Runtime's CPU kernels would run it in
    float32 without a word. The emulation takes onnx and is found where the export package registers it."""
    contract = graph_contract(serialised)
    if not holds_float16(contract):
        return serialised
    (point,) = entry_points(group="cisi.parity", name="float16")
    try:
        emulate = point.load()
    except ModuleNotFoundError as error:
        raise GraphError(
            f"a graph with float16 in it is emulated on a CPU, which needs {error.name}, expected an installation with "
            "pip install 'cisi-net[parity]'"
        ) from error
    emulated: bytes = emulate(serialised, contract)
    return emulated
