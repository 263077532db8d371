"""`python -m tests.throughput GRAPH`: how near a folder run comes to what its parts allow, at 1 and at 12 megapixels;
and what one photograph costs at 12 and at 48 megapixels, from the start of the process to the written file.

The photographs are mosaics of those in tests/photos, JPEG at quality 92, with a hole of 300x300 pixels.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from PIL import Image

from cisi_runtime.benching import Setting, bench_photograph
from cisi_runtime.errors import CisiError
from cisi_runtime.folders import default_threads, plan_jobs, run_jobs
from cisi_runtime.inpainter import SHIPPED_GRAPH, Inpainter
from cisi_runtime.jobs import Finished, Job, run_job
from cisi_runtime.stages import Stages

PHOTOS = Path(__file__).parent / "photos"
_HOLE = 300
# cisi-run in a process that says at its end how much memory it held at most.
_RUN = (
    "import atexit, sys, cisi_runtime.cli_run as m; from cisi_runtime.benching import peak_mb; "
    "atexit.register(lambda: print(f'{peak_mb():.0f}', file=sys.stderr)); m.main()"
)


def write_mosaic(folder: Path, name: str, width: int, height: int, seed: int) -> None:
    """`photos/NAME.jpg` and `masks/NAME.png`, the hole somewhere."""
    rng = np.random.default_rng(seed)
    tiles = [Image.open(path).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg")) if path.stem != "demo"]
    mosaic = Image.new("RGB", (width, height))
    for top in range(0, height, 299):
        for left in range(0, width, 299):
            mosaic.paste(tiles[rng.integers(len(tiles))], (left, top))
    hole = np.zeros((height, width), dtype=np.uint8)
    top, left = rng.integers(0, height - _HOLE), rng.integers(0, width - _HOLE)
    hole[top : top + _HOLE, left : left + _HOLE] = 255
    for place in ("photos", "masks"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    mosaic.save(folder / "photos" / f"{name}.jpg", quality=92)
    Image.fromarray(hole).save(folder / "masks" / f"{name}.png")


def throughput(folder: Path, graph: Path, workers: int) -> str:
    """All photographs one after the other in one thread, then `workers` at a time, then one after the other again."""
    inpainter = Inpainter(graph, threads=1)
    jobs, faults = plan_jobs(folder / "photos", folder / "masks", folder / "out")
    assert not faults
    run_job(jobs[0], lambda: inpainter)
    alone: list[float] = []
    stages: list[Stages] = []

    def one(job: Job) -> Finished:
        stages.append(Stages())
        return run_job(job, lambda: inpainter, stages=stages[-1])

    def pass_over(run: Callable[[], None]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def in_turn() -> None:
        for job in jobs:
            one(job)

    def side_by_side() -> None:
        for _, done in run_jobs(jobs, one, workers):
            if isinstance(done, CisiError):
                raise done

    alone.append(pass_over(in_turn))
    parts = {name: statistics.mean(s.milliseconds[name] for s in stages) for name in stages[0].milliseconds}
    together = pass_over(side_by_side)
    alone.append(pass_over(in_turn))
    bound, reached = workers * len(jobs) / statistics.mean(alone), len(jobs) / together
    times = ", ".join(f"{name} {value:.0f}" for name, value in parts.items() if value >= 0.5)
    return (
        f"{len(jobs)} photographs, one thread {bound / workers:.2f}/s ({times} ms); bound of {workers} cores "
        f"{bound:.2f}/s; reached {reached:.2f}/s, {reached / bound:.0%} of it"
    )


def start_up(times: int) -> str:
    """Medians of fresh processes, beside that of an interpreter that does nothing."""
    programs = {
        "nothing": "pass",
        "cisi-run --help": "import sys; sys.argv = ['cisi-run', '--help']; import cisi_runtime.cli_run as m; m.main()",
        "the imports of the run path": "import cisi_runtime.jobs, cisi_runtime.backends.ort",
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(times):
        for name, program in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
            seconds[name].append(time.perf_counter() - start)
    return ", ".join(f"{name} {statistics.median(own):.3f} s" for name, own in seconds.items())


def stages_of(folder: Path, graph: Path, rounds: int) -> str:
    """Medians of the stages of each photograph, in a process that is warm."""
    lines = []
    for path in sorted((folder / "photos").glob("*.jpg")):
        job = Job(path, folder / "masks" / f"{path.stem}.png", folder / "out.jpg")
        (row,) = bench_photograph([Setting(graph, "auto", 0)], job, rounds)
        lines.append(f"{path.stem}: " + ", ".join(f"{name} {value:.0f}" for name, value in row.stages.items()) + " ms")
    return "\n".join(lines)


def one_photograph(folder: Path, graph: Path, rounds: int) -> str:
    """A process of cisi-run for each photograph, in turns."""
    lines = []
    figures: dict[str, list[tuple[float, int]]] = {path.stem: [] for path in sorted((folder / "photos").glob("*.jpg"))}
    for _ in range(rounds):
        for name, own in figures.items():
            paths = [folder / "photos" / f"{name}.jpg", "--mask", folder / "masks" / f"{name}.png"]
            command = [sys.executable, "-c", _RUN, *paths, "-o", folder / "out.jpg", "--model", graph]
            start = time.perf_counter()
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True)
            own.append((time.perf_counter() - start, int(done.stderr.splitlines()[-1])))
    for name, own in figures.items():
        seconds = sorted(figure[0] for figure in own)
        lines.append(
            f"{name}: {statistics.median(seconds):.2f} s ({seconds[0]:.2f} to {seconds[-1]:.2f}), "
            f"{max(figure[1] for figure in own)} MB"
        )
    return "\n".join(lines)


@click.command()
@click.argument("graph", type=click.Path(path_type=Path, exists=True), default=SHIPPED_GRAPH)
def main(graph: Path) -> None:
    """Measure GRAPH (default: the one that ships)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mosaic(folder / "one", "12 megapixels", 4000, 3000, 0)
        write_mosaic(folder / "one", "48 megapixels", 8000, 6000, 1)
        click.echo(start_up(times=11))
        click.echo(f"one photograph, whole process, {graph.name}")
        click.echo(one_photograph(folder / "one", graph, rounds=5))
        click.echo(stages_of(folder / "one", graph, rounds=5))
        for megapixels, size, count in ((1, (1155, 866), 48), (12, (4000, 3000), 16)):
            for number in range(count):
                write_mosaic(folder / str(megapixels), str(number), *size, seed=number)
            click.echo(f"{megapixels} megapixels: {throughput(folder / str(megapixels), graph, default_threads())}")


if __name__ == "__main__":
    main()
