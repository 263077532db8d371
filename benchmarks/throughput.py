"""`python -m benchmarks.throughput GRAPH`: throughput of folder runs and the cost of one photograph.

How near a folder run comes to what its parts allow, at 1 and at 12 megapixels. What one photograph costs at 1, 12 and
48 megapixels, from the start of the process to the written file, beside its codec alone.

The photographs are mosaics of those in tests/photos, JPEG at quality 92, with a hole of 300x300 pixels.
"""

from __future__ import annotations

import io
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import wait
from functools import partial
from pathlib import Path

import click
import numpy as np
from PIL import Image

from cisi_runtime.backends.cores import available_cores
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH, BackendOptions
from cisi_runtime.batch.folder import plan_folder
from cisi_runtime.batch.job import Job, run_job
from cisi_runtime.batch.photograph import DEFAULT_OPTIONS
from cisi_runtime.batch.workers import WorkerOptions, run_jobs, start_workers
from cisi_runtime.bench.measure import Setting, bench_photograph
from cisi_runtime.errors import CisiError
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.pictures.pillow import prepare_for_photographs

PHOTOS = Path(__file__).parent.parent / "tests" / "photos"
_HOLE = 300
# cisi-run in a process that prints its peak memory at the end.
_RUN = (
    "import atexit, sys, cisi_runtime.cli.run as m; from cisi_runtime.bench.measure import peak_mb; "
    "atexit.register(lambda: print(f'{peak_mb():.0f}', file=sys.stderr)); m.main()"
)


def write_mosaic(folder: Path, name: str, width: int, height: int, seed: int) -> None:
    """Write `photos/NAME.jpg` and `masks/NAME.png`, with the hole at a random place."""
    rng = np.random.default_rng(seed)
    tiles = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg")) if path.stem != "demo"]
    mosaic = Image.new("RGB", (width, height))
    for top in range(0, height, 299):
        for left in range(0, width, 299):
            mosaic.paste(tiles[rng.integers(len(tiles))], (left, top))
    hole = np.zeros((height, width), dtype=np.uint8)
    top, left = int(rng.integers(0, height - _HOLE)), int(rng.integers(0, width - _HOLE))
    hole[top : top + _HOLE, left : left + _HOLE] = 255
    for subfolder in ("photos", "masks"):
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
    mosaic.save(folder / "photos" / f"{name}.jpg", quality=92)
    Image.fromarray(hole).save(folder / "masks" / f"{name}.png")


def throughput(folder: Path, graph: Path, backend: str, workers: int) -> str:
    """All photographs one by one in one thread, then `workers` at a time, then one by one again."""
    options = WorkerOptions(graph, BackendOptions(backend, threads=1), detail=True, job=DEFAULT_OPTIONS)
    inpainter = options.open()
    with plan_folder(folder / "photos", folder / "masks", folder / "out", overwrite=True) as plan:
        jobs = list(plan.jobs())
    run_job(jobs[0], lambda: inpainter)
    timers: list[StageTimer] = []

    def one_by_one() -> None:
        for job in jobs:
            timers.append(StageTimer())
            run_job(job, lambda: inpainter, timer=timers[-1])

    pool, work = start_workers(options, options.open(), workers)
    # Every worker has started and run before the time counts.
    wait([pool.submit(work, job) for job in jobs[: 2 * workers]])

    def in_parallel() -> None:
        for _, result in run_jobs(jobs, work, pool, 2 * workers):
            if isinstance(result, CisiError):
                raise result

    before = _seconds(one_by_one)
    means = {stage: statistics.mean(t.milliseconds[stage] for t in timers) for stage in timers[0].milliseconds}
    parallel = _seconds(in_parallel)
    sequential = statistics.mean([before, _seconds(one_by_one)])
    bound, reached = workers * len(jobs) / sequential, len(jobs) / parallel
    times = ", ".join(f"{stage} {value:.0f}" for stage, value in means.items() if value >= 0.5)
    return (
        f"{len(jobs)} photographs, one thread {bound / workers:.2f}/s ({times} ms); bound of {workers} cores "
        f"{bound:.2f}/s; reached {reached:.2f}/s, {reached / bound:.0%} of it"
    )


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def start_up(times: int) -> str:
    """Median seconds of fresh processes, beside that of an interpreter that does nothing."""
    programs = {
        "nothing": "pass",
        "cisi-run --help": "import sys; sys.argv = ['cisi-run', '--help']; import cisi_runtime.cli.run as m; m.main()",
        "the imports of the run path": "import cisi_runtime.batch.job, cisi_runtime.backends.ort",
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(times):
        for name, program in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - start)
    return ", ".join(f"{name} {statistics.median(values):.3f} s" for name, values in seconds.items())


def stages_of(folder: Path, graph: Path, rounds: int) -> str:
    """Medians of the stages of each photograph, in a warm process."""
    lines = []
    for path in sorted((folder / "photos").glob("*.jpg")):
        job = Job(path, folder / "masks" / f"{path.stem}.png", folder / "out.jpg")
        (row,) = bench_photograph([Setting(graph, BackendOptions())], job, rounds)
        lines.append(f"{path.stem}: " + ", ".join(f"{name} {value:.0f}" for name, value in row.stages.items()) + " ms")
    return "\n".join(lines)


def run_fresh(*arguments: object) -> tuple[float, int]:
    """Seconds and peak memory in MB of a fresh process of cisi-run."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _RUN, *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, int(process.stderr.splitlines()[-1])


def codec_alone(folder: Path, rounds: int) -> str:
    """What Pillow's libjpeg-turbo takes to decode each photograph, and to encode it again, in a warm process."""
    lines = []
    for path in sorted((folder / "photos").glob("*.jpg")):
        data, image = path.read_bytes(), Image.open(path)
        image.load()
        decode = [_seconds(partial(_decode, data)) for _ in range(rounds)]
        encode = [_seconds(partial(image.save, io.BytesIO(), "JPEG", quality=92)) for _ in range(rounds)]
        lines.append(
            f"{path.stem}: libjpeg-turbo decodes it in {1e3 * statistics.median(decode):.0f} ms and encodes it in "
            f"{1e3 * statistics.median(encode):.0f} ms"
        )
    return "\n".join(lines)


def _decode(data: bytes) -> None:
    Image.open(io.BytesIO(data)).load()


def one_photograph(folder: Path, graph: Path, rounds: int) -> str:
    """Fresh processes of cisi-run, one photograph after the other in every round."""
    lines = []
    figures: dict[str, list[tuple[float, int]]] = {path.stem: [] for path in sorted((folder / "photos").glob("*.jpg"))}
    for _ in range(rounds):
        for name, runs in figures.items():
            paths = [folder / "photos" / f"{name}.jpg", "--mask", folder / "masks" / f"{name}.png"]
            runs.append(run_fresh(*paths, "-o", folder / "out.jpg", "--model", graph))
    for name, runs in figures.items():
        seconds = sorted(run[0] for run in runs)
        lines.append(
            f"{name}: {statistics.median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}), "
            f"{max(run[1] for run in runs)} MB"
        )
    return "\n".join(lines)


@click.command()
@click.argument("graph", type=click.Path(path_type=Path, exists=True), default=SHIPPED_INT8_GRAPH)
def main(graph: Path) -> None:
    """Measure GRAPH (default: the one that ships)."""
    prepare_for_photographs()  # as every process of `cisi-run`
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mosaic(folder / "one", "12 megapixels", 4000, 3000, 0)
        write_mosaic(folder / "one", "48 megapixels", 8000, 6000, 1)
        write_mosaic(folder / "one", "1 megapixel", 1155, 866, 0)
        click.echo(start_up(times=11))
        click.echo(f"one photograph, whole process, {graph.name}")
        click.echo(one_photograph(folder / "one", graph, rounds=7))
        click.echo(codec_alone(folder / "one", rounds=7))
        click.echo(stages_of(folder / "one", graph, rounds=5))
        for megapixels, size, count in ((1, (1155, 866), 48), (12, (4000, 3000), 16)):
            for number in range(count):
                write_mosaic(folder / str(megapixels), str(number), *size, seed=number)
            for backend in ("onnxruntime", "openvino"):
                found = throughput(folder / str(megapixels), graph, backend, available_cores())
                click.echo(f"{megapixels} megapixels, {backend}: {found}")


if __name__ == "__main__":
    main()
