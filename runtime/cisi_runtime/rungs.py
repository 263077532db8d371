"""The rungs of the ladder that a graph file alone can climb, with its golden file: no PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.ort import OnnxRuntimeBackend, graph_contract, holds_float16
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
