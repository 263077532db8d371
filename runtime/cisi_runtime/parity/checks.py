"""The checks that a graph or an engine can go through with its golden file alone: no PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.graph import GraphInfo, read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.registry import SHIPPED_GRAPH, BackendOptions, is_engine, open_backend
from cisi_runtime.engines.sidecar import Sidecar, load_sidecar
from cisi_runtime.errors import GraphError, ParityError
from cisi_runtime.parity.compare import Comparison, compare_backend
from cisi_runtime.parity.golden import Golden, golden_path, load_golden
from cisi_runtime.parity.structure import check_golden, check_structure
from cisi_runtime.parity.verdict import ParityReport, StructureCheck
from cisi_runtime.progress_on_stderr import ShowProgress, show_nothing


def check_parity(
    artifact: Path | str = SHIPPED_GRAPH, golden: Path | str | None = None, *, structure_required: bool = True
) -> ParityReport:
    """Whether a graph or an engine is still the trained network, by its golden file:
    `check_parity("best.onnx").passed`.

    artifact: default, the graph that ships.
    golden: default, the golden file beside the graph, or beside the engine's graph.
    structure_required: False lets the numbers decide about a graph that has been changed since its export.

    Raises GraphError, ContractError and EngineError for files that are missing, damaged or not ours, ParityError for a
    golden file of other weights or of another export.
    """
    path = Path(artifact)
    if not path.is_file():
        raise GraphError(f"{path}: no such file")
    return check_file_parity(path, load_golden(Path(golden or golden_path_of(path))), structure_required)


def golden_path_of(artifact: Path) -> Path:
    """Where the golden file of a graph lies, that of the graph that an engine was built from, or that of a checkpoint's
    graph. Raises EngineError for an engine without its sidecar."""
    return golden_path(
        artifact.with_name(load_sidecar(artifact).graph) if is_engine(artifact) else artifact.with_suffix(".onnx")
    )


def check_file_parity(artifact: Path, golden: Golden, structure_required: bool = True) -> ParityReport:
    """A graph or an engine on golden cases. Raises as `check_parity`."""
    if is_engine(artifact):
        return ParityReport(check_engine_file_parity(artifact, golden))
    info = read_graph(artifact)
    structure = check_structure(info, golden, is_required=structure_required)
    return ParityReport(check_graph_parity(info, golden), structure=structure)


def check_backend_parity(
    artifact: Path, golden: Golden, options: BackendOptions, structure_required: bool = True
) -> ParityReport:
    """A file on golden cases as it will be run (see `open_backend`).

    Raises what the backends raise, ParityError for a golden file of other weights or other sizes.
    """
    structure: tuple[StructureCheck, ...] = ()
    if artifact.suffix == ".onnx":
        structure = check_structure(read_graph(artifact), golden, is_required=structure_required)
    with open_backend(artifact, options)[0] as opened:
        if is_engine(artifact):
            return ParityReport(_engine_comparisons(opened, artifact, golden))
        name = f"{opened.name}, {opened.precision}"
        return ParityReport(compare_backend(name, opened, golden, opened.precision), structure=structure)


def check_served_parity(model: Backend, golden: Golden) -> ParityReport:
    """A served model on the golden cases that it takes. Raises ParityError when it takes none, and for a golden file of
    other weights."""
    comparisons = _compare_what_fits(f"{model.name}, {model.precision}", model, golden, model.precision)
    if not comparisons:
        raise ParityError(f"{model.name}: takes {model.fixed}, expected a golden file with cases of that size")
    return ParityReport(comparisons)


def check_before_use(backend: Backend, artifact: Path) -> ParityReport | None:
    """An open backend on the golden cases that it takes. None where no golden file lies beside the graph, or it holds
    no case of such a size.

    Raises GraphError for a damaged golden file, ParityError for one of other weights or another export.
    """
    path = golden_path_of(artifact)
    if not path.is_file():
        return None
    golden = load_golden(path)
    if artifact.suffix == ".onnx":
        check_golden(read_graph(artifact), golden)
    tf32 = is_engine(artifact) and _checked_sidecar(artifact, golden).options.tf32
    precision = "float16" if tf32 else backend.precision
    comparisons = _compare_what_fits(f"{backend.name}, {precision}", backend, golden, precision)
    return ParityReport(comparisons) if comparisons else None


@contextlib.contextmanager
def graph_variants(graph: Path | bytes | GraphInfo) -> Iterator[list[tuple[str, Backend]]]:
    """Names and backends of a graph in ONNX Runtime: as written, which is the oracle, and optimised.

    Raises ContractError and GraphError, also for a graph that holds float16 where onnx is not installed.
    """
    info = read_graph(graph)
    cpu_graph = cpu_runnable(info)
    emulated = " emulated" if info.contract.holds_float16 else ""
    with contextlib.ExitStack() as stack:
        yield [
            (
                f"ONNX {info.contract.precision}{emulated}, {form}",
                stack.enter_context(OnnxRuntimeBackend(cpu_graph, optimise=form == "optimised")),
            )
            for form in ("as written", "optimised")
        ]


def check_graph_parity(
    graph: Path | bytes | GraphInfo, golden: Golden, progress: ShowProgress = show_nothing
) -> list[Comparison]:
    """All variants of a graph on all cases. Raises ParityError for a golden file of other weights or other sizes."""
    info = read_graph(graph)
    with graph_variants(info) as variants:
        return [
            comparison
            for name, backend in variants
            for comparison in compare_backend(name, backend, golden, info.contract.precision, progress)
        ]


def check_engine_parity(backend: Backend, golden: Golden, *, tf32: bool) -> list[Comparison]:
    """The golden cases whose sizes an engine takes; none where it takes none of them.

    tf32: float32 convolutions may round their factors, to as many bits as float16 has. Raises ParityError for a golden
    file of other weights.
    """
    return _compare_what_fits(backend.name, backend, golden, "float16" if tf32 else backend.contract.precision)


def check_engine_file_parity(path: Path, golden: Golden) -> list[Comparison]:
    """As `check_engine_parity`, for an engine with its sidecar.

    Raises GraphError when it takes the size of no golden case, ParityError for a golden file of another export.
    """
    from cisi_runtime.backends.tensorrt import TensorRtBackend

    with TensorRtBackend.open(path) as backend:
        return _engine_comparisons(backend, path, golden)


def _engine_comparisons(backend: Backend, path: Path, golden: Golden) -> list[Comparison]:
    comparisons = check_engine_parity(backend, golden, tf32=_checked_sidecar(path, golden).options.tf32)
    if not comparisons:
        raise GraphError(f"{path}: no golden case is of a size that it takes ({backend.fixed})")
    return comparisons


def _checked_sidecar(engine: Path, golden: Golden) -> Sidecar:
    """Raises ParityError when the golden file is not that of the export that the engine was built from."""
    sidecar = load_sidecar(engine)
    if sidecar.golden_sha256 != golden.sha256:
        raise ParityError(
            f"{engine}: the golden file is not the one that {sidecar.graph} was exported with; it was changed, or "
            "replaced by another export: export the graph and build the engine again"
        )
    return sidecar


def _compare_what_fits(name: str, backend: Backend, golden: Golden, precision: str) -> list[Comparison]:
    """The golden cases whose sizes a backend takes; none where it takes none of them."""
    cases = tuple(case for case in golden.cases if backend.fixed.accepts(case.image.shape))
    return compare_backend(name, backend, dataclasses.replace(golden, cases=cases), precision)


def cpu_runnable(graph: Path | bytes | GraphInfo) -> GraphInfo:
    """A graph that ONNX Runtime's CPU kernels run correctly: the graph itself, or, where it holds float16, its
    emulation, because those kernels would silently run it in float32.

    The emulation needs onnx. It is found through the entry point of the export package. Raises GraphError without it.
    """
    info = read_graph(graph)
    if not info.contract.holds_float16:
        return info
    (point,) = entry_points(group="cisi.parity", name="float16")
    try:
        emulate = point.load()
    except ModuleNotFoundError as error:
        raise GraphError(
            f"a graph with float16 in it is emulated on a CPU, which needs {error.name}: pip install 'cisi-net[parity]'"
        ) from error
    emulated: bytes = emulate(info.serialised())
    # The emulation runs in float32, whatever it stands for.
    contract = dataclasses.replace(info.contract, precision="float32")
    return dataclasses.replace(info, source=emulated, contract=contract)
