"""From a graph to an engine that may be deployed: built or taken from the cache, audited, compared, written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cisi_runtime.backends.graph import GraphInfo, read_graph
from cisi_runtime.building.cache import cache_key, cached_engine, store_engine, write_engine
from cisi_runtime.building.process import BuiltEngine, Progress, build_engine
from cisi_runtime.cuda.driver import Gpu, find_gpu
from cisi_runtime.engines.compatibility import check_gpu
from cisi_runtime.engines.options import CAPABILITIES, BuildOptions, Profile, choose_flavour, installed_version
from cisi_runtime.engines.sidecar import Sidecar, file_sha256
from cisi_runtime.errors import CisiError, CudaError, EngineError, OutputError, ParityError
from cisi_runtime.files import atomic_file, check_writable
from cisi_runtime.parity.checks import check_engine_parity
from cisi_runtime.parity.golden import Golden, golden_path, load_golden
from cisi_runtime.parity.structure import require_as_exported


@dataclasses.dataclass(frozen=True)
class MadeEngine:
    """An engine that was written.

    path: its file.
    sidecar: what was written beside it.
    from_cache: nothing had to be built.
    notes: for people, what was not checked and why.
    """

    path: Path
    sidecar: Sidecar
    from_cache: bool
    notes: tuple[str, ...]

    def summary(self) -> str:
        """Three lines: the audit, parity, the file."""
        sidecar, options = self.sidecar, self.sidecar.options
        how = "from the cache" if self.from_cache else f"built in {sidecar.seconds:.1f} s"
        return (
            f"precision audit: {sidecar.audit}  pass\n"
            f"parity: {sidecar.parity or 'not known yet'}\n"
            f"{self.path}: {sidecar.contract.precision}, {options.flavour} {sidecar.version} for {options.target}, "
            f"{sidecar.engine_bytes / 1e6:.1f} MB, {how}"
        )


def build(graph: Path | str, out: Path | str | None = None, options: BuildOptions | None = None) -> MadeEngine:
    """Build the TensorRT engine of a graph: `build("best.fp16.onnx")` writes `best.fp16.engine`.

    out: default, the graph's name with suffix .engine.
    options: default, `default_options` of the graph.

    Raises as `make_engine`.
    """
    path = Path(graph)
    return make_engine(path, Path(out or path.with_suffix(".engine")), options or default_options(read_graph(path)))


def default_options(info: GraphInfo, flavour: str | None = None) -> BuildOptions:
    """Options for a graph: the flavour that is installed, every capability that it knows, the widest profile that the
    graph allows. Raises EngineError when no flavour is installed, or both are and none is asked for."""
    installed_flavour = choose_flavour(flavour)
    capabilities = CAPABILITIES if installed_flavour == "tensorrt-rtx" else ()
    return BuildOptions(installed_flavour, capabilities, Profile().limited(info.fixed.sides))


def make_engine(
    graph: Path | GraphInfo,
    out: Path,
    options: BuildOptions,
    *,
    use_cache: bool = True,
    progress: Progress | None = None,
) -> MadeEngine:
    """Write the engine `out` and its sidecar for a graph of ours, or nothing.

    On a machine with a GPU that the engine is for, it is compared with the golden file beside the graph. Raises
    EngineError for a graph that cannot be built or whose convolutions are not of the precision that its contract
    states, ParityError for a graph that was changed since its export and when the engine is another network, and
    GraphError, ContractError and OutputError.
    """
    check_writable(out)
    info = read_graph(graph)
    assert isinstance(info.source, Path)
    check_profile(info, options)
    if info.contract.precision == "int8" and info.contract.target != "tensorrt":
        raise EngineError(
            f"{info.label}: is an INT8 graph for CPUs, expected one for TensorRT: cisi-calibrate --target tensorrt"
        )
    golden_file = golden_path(info.source)
    golden = load_golden(golden_file) if golden_file.is_file() else None
    record = require_as_exported(info, golden)
    graph_sha256 = file_sha256(info.serialised())
    order = _Order(info, info.source, graph_sha256, record.golden_sha256, options, _gpu_to_build_for(options))
    timing_file = out.with_name(out.name + ".timing")
    notes: list[str] = []
    entry = _from_cache(order, notes) if use_cache else None
    timing_cache = b""
    if entry is not None:
        engine, sidecar = entry[0], dataclasses.replace(entry[1], graph=order.path.name)
    else:
        new_engine = build_engine(order.path, options, timing_cache=timing_file, progress=progress)
        new_engine.audit.check(info.contract.precision)
        engine, sidecar, timing_cache = new_engine.engine, _sidecar(new_engine, order), new_engine.timing_cache
        if use_cache:
            # Before anything else can go wrong: the build may have taken minutes.
            try:
                store_engine(order.key, engine, sidecar)
            except OutputError as error:
                notes.append(f"not cached (the cache is $CISI_CACHE or the user's cache folder): {error}")
    try:
        verdict = _parity(engine, sidecar, golden_file, golden, notes)
    except ParityError as error:
        if entry is None:
            raise
        raise ParityError(f"{error}; --no-cache builds it anew") from error
    sidecar = dataclasses.replace(sidecar, parity=verdict)
    write_engine(out, engine, sidecar)
    if timing_cache:
        with atomic_file(timing_file) as temporary:
            temporary.write_bytes(timing_cache)
    return MadeEngine(out, sidecar, entry is not None, tuple(notes))


@dataclasses.dataclass(frozen=True)
class _Order:
    """What is to be built.

    info: the graph. path: its file. graph_sha256: of its bytes. golden_sha256: of its golden cases.
    options: of the engine.
    gpu: the GPU to build for, None for none in particular.
    """

    info: GraphInfo
    path: Path
    graph_sha256: str
    golden_sha256: str
    options: BuildOptions
    gpu: Gpu | None

    @property
    def key(self) -> str:
        version = installed_version(self.options.flavour) or ""
        return cache_key(self.graph_sha256, self.options, version, str(self.gpu) if self.gpu else "")


def check_profile(info: GraphInfo, options: BuildOptions) -> None:
    """Raise EngineError when a graph with some fixed sides does not take the pictures of the profile."""
    sides = info.fixed.sides
    if None not in sides or sides == (None, None, None):
        return
    if not all(info.fixed.accepts(size.sides) for size in options.profile.sizes):
        raise EngineError(
            f"the graph ({info.contract.precision}) takes {info.fixed}; expected a profile of such pictures, got "
            f"{options.profile}"
        )


def _from_cache(order: _Order, notes: list[str]) -> tuple[bytes, Sidecar] | None:
    try:
        entry = cached_engine(order.key)
        # An entry is what its sidecar says, whatever its file is called.
        if entry is not None and (entry[1].graph_sha256, entry[1].options) != (order.graph_sha256, order.options):
            raise EngineError(f"it is of another graph, {entry[1].graph}, or of other options")
        return entry
    except CisiError as error:
        notes.append(f"the cached engine is not used, a new one is built: {error}")
        return None


def _gpu_to_build_for(options: BuildOptions) -> Gpu | None:
    if options.flavour != "tensorrt":
        return None
    try:
        return find_gpu()
    except CudaError as error:
        raise EngineError(
            f"TensorRT builds for the GPU of this machine, and there is none: {error}; expected a GPU, or flavour "
            "tensorrt-rtx"
        ) from error


def _sidecar(new_engine: BuiltEngine, order: _Order) -> Sidecar:
    return Sidecar(
        contract=order.info.contract,
        graph=order.path.name,
        graph_sha256=order.graph_sha256,
        golden_sha256=order.golden_sha256,
        fixed=order.info.fixed.sides,
        engine_sha256=file_sha256(new_engine.engine),
        engine_bytes=len(new_engine.engine),
        options=order.options,
        version=new_engine.version,
        gpu=order.gpu.name if order.gpu else "",
        capability=order.gpu.capability if order.gpu else "",
        audit=new_engine.audit,
        seconds=round(new_engine.seconds, 3),
        parity=None,
    )


def _parity(engine: bytes, sidecar: Sidecar, golden_file: Path, golden: Golden | None, notes: list[str]) -> str | None:
    """Verdict on the golden cases that the engine takes. None, with the reason in `notes`, if it cannot run here."""
    from cisi_runtime.backends.tensorrt import TensorRtBackend

    try:
        check_gpu(sidecar, find_gpu())
    except (CudaError, EngineError) as error:
        notes.append(
            f"the engine was not compared with the network; run this command on a machine with its GPU: {error}"
        )
        return None
    with TensorRtBackend(engine, sidecar) as backend:
        comparisons = check_engine_parity(backend, golden or load_golden(golden_file), tf32=sidecar.options.tf32)
        if not comparisons:
            notes.append(f"the engine was not compared: it takes the size of no golden case ({backend.fixed})")
            return None
    failed = [item for item in comparisons if not item.passed]
    if failed:
        raise ParityError(
            f"{golden_file.with_name(sidecar.graph)}: the engine is another network: {len(failed)} of "
            f"{len(comparisons)} comparisons failed, the first, {failed[0].case!r}, with {failed[0].hole_psnr_db:.1f} "
            f"dB, expected {failed[0].tolerance}"
        )
    worst = min(item.hole_psnr_db for item in comparisons)
    return f"passed: {len(comparisons)} cases, worst {worst:.1f} dB over the hole"
