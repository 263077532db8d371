"""Measuring artifacts and backends side by side: the same photograph, in turns, in one run."""

from __future__ import annotations

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
from cisi_runtime.backends.opening import open_backend
from cisi_runtime.errors import CisiError, GraphError, PictureError
from cisi_runtime.golden import golden_path, load_golden
from cisi_runtime.inpainter import Inpainter, run_in_stages
from cisi_runtime.jobs import Job, run_job
from cisi_runtime.masks import centre_hole
from cisi_runtime.parity import check_backend
from cisi_runtime.pictures import read_mask, read_picture
from cisi_runtime.stages import Stages

# Seconds between two measurements, in which the threads of the one before come to rest: they wait for more work awake.
_REST = 0.02
_WARM_UP = 2


@dataclasses.dataclass(frozen=True)
class Setting:
    """An artifact in a backend with a number of threads (0: the backend's own choice)."""

    artifact: Path
    backend: str
    threads: int

    @property
    def name(self) -> str:
        """For tables and plots."""
        threads = f", {self.threads} threads" if self.threads else ""
        return f"{self.artifact.name} · {self.backend}{threads}"


@dataclasses.dataclass(frozen=True)
class Latency:
    """Of one thing that was done again and again, in milliseconds; per_second: pictures."""

    p50: float
    p95: float
    p99: float
    least: float
    per_second: float

    @classmethod
    def of(cls, milliseconds: Sequence[float], pictures: int = 1) -> Latency:
        """Percentiles by linear interpolation; pictures: at a time."""
        p50, p95, p99 = np.percentile(milliseconds, (50, 95, 99))
        return cls(float(p50), float(p95), float(p99), min(milliseconds), 1000.0 * pictures / float(p50))


@dataclasses.dataclass(frozen=True)
class FirstRun:
    """Of a fresh process: seconds from its start until the network was loaded, milliseconds of the first photograph
    from file to file, and the most memory that it held, in MB."""

    start_up_s: float
    first_call_ms: float
    peak_mb: float


@dataclasses.dataclass(frozen=True)
class PhotographRow:
    """A photograph from file to file. stages: medians in milliseconds; quality_db: PSNR over the hole against the
    golden file's reference, mean of its natural cases (None: there is none)."""

    setting: Setting
    latency: Latency
    stages: dict[str, float]
    first: FirstRun
    quality_db: float | None


@dataclasses.dataclass(frozen=True)
class NetworkRow:
    """The network alone on pixels in memory."""

    setting: Setting
    batch: int
    latency: Latency


def bench_photograph(settings: Sequence[Setting], job: Job, rounds: int) -> list[PhotographRow]:
    """A photograph from file to file, with each setting in turn. Raises what the backends and `run_job` raise."""
    _check_hole(job)
    # Fresh processes first, while nothing else is in memory.
    firsts = [_first_run(setting, job) for setting in settings]
    inpainters = [Inpainter(s.artifact, s.backend, threads=s.threads) for s in settings]
    qualities = [_quality_db(s.artifact, inpainter.backend) for s, inpainter in zip(settings, inpainters, strict=True)]
    collected: list[list[Stages]] = [[] for _ in settings]

    def once(index: int) -> None:
        stages = Stages()
        run_job(job, lambda: inpainters[index], stages=stages)
        collected[index].append(stages)

    totals = in_turns([lambda index=index: once(index) for index in range(len(settings))], rounds)  # type: ignore[misc]
    rows = []
    for setting, first, quality, times, stages in zip(settings, firsts, qualities, totals, collected, strict=True):
        kept = stages[_WARM_UP:]
        medians = {name: float(np.median([s.milliseconds[name] for s in kept])) for name in kept[0].milliseconds}
        rows.append(PhotographRow(setting, Latency.of(times), medians, first, quality))
    return rows


def bench_network(settings: Sequence[Setting], batches: Sequence[int], size: int, rounds: int) -> list[NetworkRow]:
    """The network alone on pictures of `size` x `size` with the centre hole, with each setting and batch in turn.
    Raises GraphError for a graph that does not take them, before anything is measured."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    hole = centre_hole(size, size)
    work: list[tuple[Setting, int, Callable[[], object]]] = []
    for setting in settings:
        backend, _ = open_backend(setting.artifact, setting.backend, threads=setting.threads)
        for batch in batches:
            multiple, least = backend.contract.size_multiple, backend.contract.min_size
            if not backend.fixed.takes((batch, size, size)) or size % multiple or size < least:
                raise GraphError(
                    f"{setting.artifact}: takes {backend.fixed}, sides from {least} on, multiples of {multiple}; "
                    f"not batch {batch} of {size}x{size}: choose --size and --batch"
                )
            work.append((setting, batch, _network_call(backend, np.stack([image] * batch), np.stack([hole] * batch))))
    times = in_turns([call for _, _, call in work], rounds)
    return [
        NetworkRow(setting, batch, Latency.of(milliseconds, batch))
        for (setting, batch, _), milliseconds in zip(work, times, strict=True)
    ]


def in_turns(calls: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Milliseconds of each call, one after the other in every round, so that a disturbance meets all of them; two
    rounds before warm up and do not count."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + _WARM_UP):
        for call, own in zip(calls, times, strict=True):
            time.sleep(_REST)
            start = time.perf_counter()
            call()
            if number >= _WARM_UP:
                own.append(1000.0 * (time.perf_counter() - start))
    return times


def _check_hole(job: Job) -> None:
    assert job.mask is not None
    if not read_mask(job.mask, read_picture(job.image).size).any():
        raise PictureError(f"{job.mask}: has no hole, so that there is nothing to measure")


def _network_call(
    backend: Backend, images: npt.NDArray[np.uint8], holes: npt.NDArray[np.bool_]
) -> Callable[[], object]:
    return lambda: run_in_stages(backend, images, holes, Stages())


def _quality_db(artifact: Path, backend: Backend) -> float | None:
    path = golden_path(artifact.with_suffix(".onnx"))
    if not path.exists():
        return None
    golden = load_golden(path)
    fitting = tuple(c for c in golden.cases if c.kind == "natural" and backend.fixed.takes(c.image.shape))
    natural = dataclasses.replace(golden, cases=fitting)
    comparisons = check_backend(artifact.name, backend, natural, backend.contract.precision)
    return float(np.mean([item.hole_psnr_db for item in comparisons])) if comparisons else None


_FIRST_RUN = """
import sys, time
started = float(sys.argv[1])
from pathlib import Path
from cisi_runtime.benching import first_run
first_run(started, *sys.argv[2:])
"""


def _first_run(setting: Setting, job: Job) -> FirstRun:
    paths = [str(path) for path in (job.image, job.mask, job.output)]
    arguments = [str(time.time()), str(setting.artifact), setting.backend, str(setting.threads), *paths]
    process = subprocess.run(
        [sys.executable, "-c", _FIRST_RUN, *arguments], capture_output=True, text=True, check=False
    )
    if process.returncode:
        last = process.stderr.strip().splitlines()[-1:]
        raise CisiError(f"{setting.name}: its process ended with {process.returncode}: {' '.join(last)}")
    return FirstRun(**json.loads(process.stdout.splitlines()[-1]))


def first_run(started: float, artifact: str, backend: str, threads: str, image: str, mask: str, output: str) -> None:
    """What the fresh process does; prints a `FirstRun` as JSON. started: when it was, in seconds since 1970."""
    inpainter = Inpainter(artifact, backend, threads=int(threads))
    start_up = time.time() - started
    start = time.perf_counter()
    run_job(Job(Path(image), Path(mask), Path(output)), lambda: inpainter)
    first_call = 1000.0 * (time.perf_counter() - start)
    print(json.dumps(dataclasses.asdict(FirstRun(start_up, first_call, peak_mb()))))


def peak_mb() -> float:
    """The most memory that this process ever held. getrusage would count what its parent held when it was forked."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes where there is no /proc: macOS
