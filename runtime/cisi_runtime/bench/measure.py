"""Artifacts and backends measured side by side: the same photograph, in turns, in one run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import BackendOptions, open_backend
from cisi_runtime.batch.job import Job, run_job
from cisi_runtime.errors import CisiError, GraphError, PictureError, error_prefix
from cisi_runtime.inpainting.inpainter import Inpainter, run_in_stages
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.parity.compare import compare_backend
from cisi_runtime.parity.golden import golden_path, load_golden
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.reading import decode_mask, decode_picture
from cisi_runtime.storage.access import read_address

# Seconds between two measurements. The threads of the first one spin for a while before they sleep.
_REST_S = 0.02
_WARM_UP_ROUNDS = 2


@dataclasses.dataclass(frozen=True)
class Setting:
    """An artifact, and what it runs in."""

    artifact: Path
    options: BackendOptions

    @property
    def name(self) -> str:
        """For tables and plots."""
        options = self.options
        device = f" {options.device}" if options.device != "auto" else ""
        precision = f" {options.precision}" if options.precision != "stored" else ""
        threads = f", {options.threads} thread{'s' * (options.threads > 1)}" if options.threads else ""
        return f"{self.artifact.name} · {options.backend}{device}{precision}{threads}"


@dataclasses.dataclass(frozen=True)
class Latency:
    """Latency of a repeated call.

    p50, p95, p99, minimum: in milliseconds.
    per_second: pictures.
    """

    p50: float
    p95: float
    p99: float
    minimum: float
    per_second: float

    @classmethod
    def of(cls, milliseconds: Sequence[float], pictures: int = 1) -> Latency:
        """Percentiles by linear interpolation. pictures: done at a time."""
        p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99))
        return cls(float(p50), float(p95), float(p99), min(milliseconds), 1000.0 * pictures / float(p50))


@dataclasses.dataclass(frozen=True)
class ColdStart:
    """What a fresh process needs.

    start_up_s: from its start until the network is loaded.
    first_call_ms: for the first photograph, from file to file.
    peak_mb: memory at its highest.
    """

    start_up_s: float
    first_call_ms: float
    peak_mb: float


@dataclasses.dataclass(frozen=True)
class PhotographRow:
    """A photograph from file to file.

    setting: artifact, and what it runs in.
    latency: of the whole photograph.
    cold_start: of a fresh process.
    stages: median of each, in milliseconds.
    quality_db: PSNR over the hole against the golden file's reference, mean of its natural cases; None without them.
    """

    setting: Setting
    latency: Latency
    stages: dict[str, float]
    cold_start: ColdStart
    quality_db: float | None


@dataclasses.dataclass(frozen=True)
class NetworkRow:
    """The network alone, on pixels in memory."""

    setting: Setting
    batch: int
    latency: Latency


def bench_photograph(settings: Sequence[Setting], job: Job, rounds: int) -> list[PhotographRow]:
    """A photograph from file to file, with each setting in turn. Raises what the backends and `run_job` raise."""
    # Fresh processes first, while nothing else is in memory.
    cold_starts = [_cold_start(setting, job) for setting in settings]
    with contextlib.ExitStack() as stack:
        inpainters = [stack.enter_context(Inpainter(s.artifact, **dataclasses.asdict(s.options))) for s in settings]
        qualities = [_quality_db(s.artifact, i.backend) for s, i in zip(settings, inpainters, strict=True)]
        timers: list[list[StageTimer]] = [[] for _ in settings]

        def run_once(index: int) -> None:
            timer = StageTimer()
            run_job(job, lambda: inpainters[index], timer=timer)
            timers[index].append(timer)

        totals = interleaved([lambda index=index: run_once(index) for index in range(len(settings))], rounds)  # type: ignore[misc]
    latencies = [Latency.of(milliseconds) for milliseconds in totals]
    medians = [_medians(setting_timers[_WARM_UP_ROUNDS:]) for setting_timers in timers]
    return [PhotographRow(*row) for row in zip(settings, latencies, medians, cold_starts, qualities, strict=True)]


def bench_network(settings: Sequence[Setting], batches: Sequence[int], size: int, rounds: int) -> list[NetworkRow]:
    """The network alone on pictures of `size` x `size` with the centre hole, with each setting and batch in turn.

    Raises GraphError for a graph that does not take them, before anything is measured.
    """
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    hole = centre_hole(size, size)
    with contextlib.ExitStack() as stack:
        runs: list[tuple[Setting, int, Callable[[], object]]] = []
        for setting in settings:
            opened, _ = open_backend(setting.artifact, setting.options)
            backend = stack.enter_context(opened)
            for batch in batches:
                _check_size(setting, backend, batch, size)
                call = _network_call(backend, np.stack([image] * batch), np.stack([hole] * batch))
                runs.append((setting, batch, call))
        times = interleaved([call for _, _, call in runs], rounds)
    return [
        NetworkRow(setting, batch, Latency.of(milliseconds, batch))
        for (setting, batch, _), milliseconds in zip(runs, times, strict=True)
    ]


def interleaved(calls: Sequence[Callable[[], object]], rounds: int, *, warm: bool = False) -> list[list[float]]:
    """Milliseconds of each call. The calls are interleaved, so that a disturbance affects all of them. Two
    warm-up rounds do not count.

    warm: call each once more, untimed, in front of each measurement, so that it finds neither the caches nor the cores
        full of what ran before it.
    """
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + _WARM_UP_ROUNDS):
        for call, call_times in zip(calls, times, strict=True):
            time.sleep(_REST_S)
            if warm:
                call()
            start = time.perf_counter()
            call()
            if number >= _WARM_UP_ROUNDS:
                call_times.append(1000.0 * (time.perf_counter() - start))
    return times


def _medians(timers: Sequence[StageTimer]) -> dict[str, float]:
    return {
        stage: float(np.median([timer.milliseconds[stage] for timer in timers])) for stage in timers[0].milliseconds
    }


def check_job(job: Job) -> None:
    """Raise PictureError and StorageError for a photograph and a mask that nothing can be measured with."""
    assert job.mask is not None
    with error_prefix("--image"):
        decode_picture(read_address(job.image), str(job.image))
    with error_prefix("--mask"):
        if not decode_mask(read_address(job.mask), str(job.mask)).any():
            raise PictureError(f"{job.mask}: has no hole, so there is nothing to measure")


def _check_size(setting: Setting, backend: Backend, batch: int, size: int) -> None:
    multiple, min_size = backend.contract.size_multiple, backend.contract.min_size
    if not backend.fixed.accepts((batch, size, size)) or size % multiple or size < min_size:
        raise GraphError(
            f"{setting.artifact}: takes {backend.fixed}, sides from {min_size} on, multiples of {multiple}; "
            f"not batch {batch} of {size}x{size}: choose --size and --batch"
        )


def _network_call(
    backend: Backend, images: npt.NDArray[np.uint8], holes: npt.NDArray[np.bool_]
) -> Callable[[], object]:
    return lambda: run_in_stages(backend, images, holes, StageTimer())


def _quality_db(artifact: Path, backend: Backend) -> float | None:
    path = golden_path(artifact.with_suffix(".onnx"))
    if not path.exists():
        return None
    golden = load_golden(path)
    # Without a hole every network is exact.
    natural = (c for c in golden.cases if c.kind == "natural" and c.hole_mask.any())
    cases = tuple(c for c in natural if backend.fixed.accepts(c.image.shape))
    golden = dataclasses.replace(golden, cases=cases)
    comparisons = compare_backend(artifact.name, backend, golden, backend.precision)
    return float(np.mean([item.hole_psnr_db for item in comparisons])) if comparisons else None


_COLD_START = """
import sys, time
started = float(sys.argv[1])
from pathlib import Path
from cisi_runtime.bench.measure import print_cold_start
print_cold_start(started, *sys.argv[2:])
"""


def _cold_start(setting: Setting, job: Job) -> ColdStart:
    paths = [str(path) for path in (job.image, job.mask, job.output)]
    arguments = [
        str(time.time()),
        str(setting.artifact),
        json.dumps(dataclasses.asdict(setting.options)),
        *paths,
    ]
    process = subprocess.run(
        [sys.executable, "-c", _COLD_START, *arguments], capture_output=True, text=True, check=False
    )
    if process.returncode:
        last_line = " ".join(process.stderr.strip().splitlines()[-1:])
        raise CisiError(f"{setting.name}: its process ended with {process.returncode}: {last_line}")
    return ColdStart(**json.loads(process.stdout.splitlines()[-1]))


def print_cold_start(started: float, artifact: str, options: str, image: str, mask: str, output: str) -> None:
    """What the fresh process does; prints a `ColdStart` as JSON. started: when it was, in seconds since 1970."""
    inpainter = Inpainter(artifact, **json.loads(options))
    start_up = time.time() - started
    start = time.perf_counter()
    run_job(Job(Path(image), Path(mask), Path(output)), lambda: inpainter)
    first_call = 1000.0 * (time.perf_counter() - start)
    print(json.dumps(dataclasses.asdict(ColdStart(start_up, first_call, peak_mb()))))


def peak_mb() -> float:
    """Peak memory of this process in MB. On Linux not by getrusage, which counts what the parent held when it
    forked."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes where there is no /proc: macOS
