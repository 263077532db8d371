"""From a graph to an engine that may be deployed: built or taken from the cache, audited, compared, written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cisi_runtime.backends.ort import fixed_shape, graph_contract
from cisi_runtime.contract import Contract
from cisi_runtime.cuda.driver import Gpu, find_gpu
from cisi_runtime.engines.build import Built, Progress, build
from cisi_runtime.engines.cache import cache_key, cached, keep, write_engine
from cisi_runtime.engines.options import BuildOptions, installed_version
from cisi_runtime.engines.sidecar import Sidecar, file_sha256
from cisi_runtime.errors import CudaError, EngineError, OutputError, ParityError
from cisi_runtime.files import check_writable, whole_file
from cisi_runtime.golden import golden_path, load_golden
from cisi_runtime.rungs import check_engine


@dataclasses.dataclass(frozen=True)
class Made:
    """sidecar: what was written beside the engine; from_cache: whether nothing had to be built; notes: for people, what
    was not checked and why."""

    sidecar: Sidecar
    from_cache: bool
    notes: tuple[str, ...]


def make_engine(
    graph: Path, out: Path, options: BuildOptions, *, use_cache: bool = True, progress: Progress | None = None
) -> Made:
    """Write the engine `out` and its sidecar for a graph of ours, or nothing.

    On a machine with a GPU that the engine is for it is compared with the golden file beside the graph. Raises
    EngineError for a graph that cannot be built or whose convolutions are not of the precision that its contract
    states, ParityError when the engine is another network, and GraphError, ContractError and OutputError.
    """
    check_writable(out)
    contract, fixed = graph_contract(graph), fixed_shape(graph)
    check_profile(contract, dataclasses.astuple(fixed), options)
    gpu = _gpu_to_build_for(options)
    version = installed_version(options.flavour) or ""
    sha256 = file_sha256(graph.read_bytes())
    key = cache_key(sha256, options, version, str(gpu) if gpu else "")
    timing_file, timing_cache = out.with_name(out.name + ".timing"), b""
    notes: list[str] = []
    found = None
    if use_cache:
        try:
            found = cached(key)
        except EngineError as error:
            notes.append(f"the cache's engine is not used, a new one takes its place: {error}")
    if found is not None:
        engine, sidecar = found
        sidecar = dataclasses.replace(sidecar, graph=graph.name)
    else:
        built = build(graph, options, timing_cache=timing_file, progress=progress)
        built.audit.check(contract.precision)
        engine, timing_cache = built.engine, built.timing_cache
        sidecar = _describe(built, contract, graph, sha256, dataclasses.astuple(fixed), options, gpu)
        if use_cache:
            # Before anything else can go wrong: it took minutes, perhaps.
            try:
                keep(key, engine, sidecar)
            except OutputError as error:
                notes.append(f"not kept for the next time (the cache is $CISI_CACHE or ~/.cache/cisi-net): {error}")
    sidecar = dataclasses.replace(sidecar, parity=_compare(engine, sidecar, graph, notes))
    write_engine(out, engine, sidecar)
    if timing_cache:
        with whole_file(timing_file) as temporary:
            temporary.write_bytes(timing_cache)
    return Made(sidecar, found is not None, tuple(notes))


def check_profile(contract: Contract, fixed: tuple[int | None, int | None, int | None], options: BuildOptions) -> None:
    """Raise EngineError when a graph with some fixed sides does not take the pictures of the profile."""
    if None not in fixed or fixed == (None, None, None):
        return
    sizes = (options.profile.least, options.profile.usual, options.profile.most)
    for size in sizes:
        if any(own not in (None, given) for own, given in zip(fixed, dataclasses.astuple(size), strict=True)):
            batch, height, width = (side if side is not None else "any" for side in fixed)
            raise EngineError(
                f"the graph ({contract.precision}) takes batch {batch}, width {width}, height {height}; expected a "
                f"profile of such pictures, got {options.profile}"
            )


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


def _describe(
    built: Built,
    contract: Contract,
    graph: Path,
    sha256: str,
    fixed: tuple[int | None, int | None, int | None],
    options: BuildOptions,
    gpu: Gpu | None,
) -> Sidecar:
    return Sidecar(
        contract=contract,
        graph=graph.name,
        graph_sha256=sha256,
        fixed=fixed,
        engine_sha256=file_sha256(built.engine),
        engine_bytes=len(built.engine),
        options=options,
        version=built.version,
        gpu=gpu.name if gpu else "",
        capability=gpu.capability if gpu else "",
        audit=built.audit,
        seconds=round(built.seconds, 3),
        parity=None,
    )


def _compare(engine: bytes, sidecar: Sidecar, graph: Path, notes: list[str]) -> str | None:
    """The verdict of the golden cases that the engine's profile takes, None (and why, in `notes`) when this machine
    cannot tell."""
    from cisi_runtime.backends.tensorrt import TensorRtBackend
    from cisi_runtime.engines.loading import check_gpu

    try:
        check_gpu(sidecar, find_gpu())
    except (CudaError, EngineError) as error:
        notes.append(f"the engine itself was not compared with the network, the same command on its card does: {error}")
        return None
    backend = TensorRtBackend(engine, sidecar)
    try:
        comparisons = check_engine(backend, load_golden(golden_path(graph)), tf32=sidecar.options.tf32)
    finally:
        backend.close()
    if not comparisons:
        notes.append(f"the engine itself was not compared: no golden case is of a size that it takes ({backend.fixed})")
        return None
    failed = [item for item in comparisons if not item.passed]
    if failed:
        raise ParityError(
            f"{graph}: the engine is another network: {len(failed)} of {len(comparisons)} comparisons failed, the "
            f"first, {failed[0].case!r}, with {failed[0].hole_psnr_db:.1f} dB, expected {failed[0].tolerance}"
        )
    worst = min(item.hole_psnr_db for item in comparisons)
    return f"passed: {len(comparisons)} cases, worst {worst:.1f} dB over the hole"
