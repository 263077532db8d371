"""`python -m benchmarks.serve_load`: `cisi-serve` alone, beside a folder run, under more load than it can take, under
attack, and with workers that are killed.

Everything runs on this machine, on loopback, the clients too: they take some of the cores that the service works with.
Load is open: requests come at a fixed rate, whether or not earlier ones were answered, and nobody tries again.
"""

from __future__ import annotations

import asyncio
import collections
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np

from benchmarks.loaded_service import Service, ask, closed_loop, open_load, request_of, running
from benchmarks.throughput import PHOTOS, write_mosaic
from cisi_runtime.backends.cores import available_cores
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH, BackendOptions
from cisi_runtime.batch.job import Job, JobSummary, run_job
from cisi_runtime.batch.photograph import DEFAULT_OPTIONS
from cisi_runtime.batch.workers import WorkerOptions, start_workers
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.pictures.pillow import prepare_for_photographs

_CLIENTS = 16
_LOADS = (0.5, 1.0, 2.0, 10.0)


def alone(service: Service, jobs: list[Job], request: bytes, rounds: int) -> dict[str, float]:
    """One request at a time, in turns with the same job in this process. Medians in milliseconds."""
    times = collections.defaultdict(list)
    with Inpainter() as inpaint:
        for number in range(rounds + 2):
            start = time.perf_counter()
            run_job(jobs[0], lambda: inpaint)
            direct = time.perf_counter() - start
            time.sleep(0.1)  # until its threads sleep
            answer = asyncio.run(ask(service.port, request))
            assert answer.status == 200
            time.sleep(0.1)
            if number >= 2:
                times["run_job"].append(1000.0 * direct)
                times["service"].append(1000.0 * answer.seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def beside_a_folder(service: Service, jobs: list[Job], request: bytes, count: int) -> dict[str, float]:
    """16 clients, in turns with a folder run of as many workers. Photographs a second, medians of three rounds."""
    workers = available_cores()
    options = WorkerOptions(SHIPPED_INT8_GRAPH, BackendOptions(threads=1), detail=True, job=DEFAULT_OPTIONS)
    pool, work = start_workers(options, options.open(), workers)
    _done(pool, work, jobs[0], 2 * workers)
    asyncio.run(closed_loop(service.port, request, _CLIENTS, 2 * workers))
    rates = collections.defaultdict(list)
    for _ in range(3):
        start = time.perf_counter()
        _done(pool, work, jobs[0], count)
        rates["folder"].append(count / (time.perf_counter() - start))
        start = time.perf_counter()
        answers = asyncio.run(closed_loop(service.port, request, _CLIENTS, count))
        rates["service"].append(count / (time.perf_counter() - start))
        assert all(answer.status == 200 for answer in answers)
    pool.shutdown()
    return {name: statistics.median(values) for name, values in rates.items()}


def _done(pool: Executor, work: Callable[[Job], JobSummary], job: Job, count: int) -> None:
    """A job so many times. Raises what one of them raises."""
    for future in [pool.submit(work, job) for _ in range(count)]:
        future.result()


def under_load(
    service: Service, request: bytes, expected: bytes, capacity: float, load: float, seconds: float
) -> dict[str, float]:
    """A row of the table."""
    largest = service.memory_mb()
    start = time.perf_counter()
    with ThreadPoolExecutor(1) as pool:
        running_load = pool.submit(asyncio.run, open_load(service.port, request, load * capacity, seconds))
        while not running_load.done():
            largest = max(largest, service.memory_mb())
            time.sleep(1.0)
        answers = running_load.result()
        elapsed = time.perf_counter() - start
    accepted = [answer for answer in answers if answer.status == 200]
    wrong = [answer for answer in accepted if answer.body != expected]
    others = collections.Counter(answer.status for answer in answers if answer.status not in (200, 429))
    assert not wrong, f"{len(wrong)} wrong answers"
    p50, p95, p99 = np.percentile([answer.seconds for answer in accepted], [50, 95, 99])
    refused = sum(answer.status == 429 for answer in answers)
    return {
        "load": load,
        "requests": len(answers),
        "answered": len(accepted),
        "refused": refused,
        "failed": sum(others.values()),
        "per_second": len(accepted) / elapsed,
        "p50_s": p50,
        "p95_s": p95,
        "p99_s": p99,
        "memory_mb": largest,
    }


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A request with some of its bytes changed, left out or repeated."""
    parts = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(parts))
        length = rng.choice([1, 1, 2, 8, 100, 1000])
        how = rng.randrange(4)
        if how == 0:
            parts[at : at + length] = rng.randbytes(length)
        elif how == 1:
            del parts[at : at + length]
        elif how == 2:
            parts[at:at] = parts[at : at + length]
        else:
            parts[at] ^= 1 << rng.randrange(8)
    return bytes(parts)


def malformed(service: Service, request: bytes, count: int) -> dict[str, float]:
    """Many mutated requests: what became of them, and of the service."""
    rng = random.Random(1)
    before, deaths = service.memory_mb(), service.total("cisi_process_deaths_total")
    statuses: collections.Counter[int] = collections.Counter()

    async def all_of_them() -> None:
        limit = asyncio.Semaphore(8)

        async def one(data: bytes) -> None:
            async with limit:
                # Of those that never end only the half-closing tells the service.
                statuses[(await ask(service.port, data, half_close=True)).status] += 1

        for start in range(0, count, 100):
            await asyncio.gather(*(one(mutated(request, rng)) for _ in range(min(100, count - start))))

    asyncio.run(all_of_them())
    return {
        **{f"status_{status}": number for status, number in sorted(statuses.items())},
        "process_deaths": service.total("cisi_process_deaths_total") - deaths,
        "waiting_afterwards": service.total("cisi_queue_requests"),
        "memory_before_mb": before,
        "memory_after_mb": service.memory_mb(),
    }


def killed_workers(service: Service, request: bytes, kills: int, count: int) -> dict[str, float]:
    """Workers killed one after the other while 16 clients ask."""
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(asyncio.run, closed_loop(service.port, request, _CLIENTS, count))
        killed = 0
        while killed < kills and not asking.done():
            time.sleep(1.5)
            workers = service.workers()
            if workers:
                os.kill(workers[0], signal.SIGKILL)
                killed += 1
        answers = asking.result()
    statuses = collections.Counter(answer.status for answer in answers)
    return {
        "requests": len(answers),
        "killed": killed,
        "answered": statuses[200],
        "status_502": statuses[502],
        "other": len(answers) - statuses[200] - statuses[502],
        "deaths": service.total("cisi_process_deaths_total"),
    }


@click.command()
@click.option("--seconds", default=30.0, show_default=True, help="Of each load.")
@click.option("--malformed", "malformed_count", default=10_000, show_default=True, help="Mutated requests.")
def main(seconds: float, malformed_count: int) -> None:
    """Measure everything; some five minutes. Leave the machine alone meanwhile."""
    prepare_for_photographs()  # as every process of `cisi-run`
    # In memory: the service writes no file, so those of the job beside it must cost nothing.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, running() as service:
        folder = Path(name)
        write_mosaic(folder, "large", 1200, 900, 1)
        large_files = folder / "photos" / "large.jpg", folder / "masks" / "large.png"
        small_files = PHOTOS / "balloon.jpg", PHOTOS / "balloon.mask.png"
        large, small = Job(*large_files, folder / "large.jpg"), Job(*small_files, folder / "balloon.jpg")
        request, small_request = request_of(*large_files), request_of(*small_files)
        results: dict[str, object] = {}

        def show(title: str, values: dict[str, float]) -> None:
            results[title] = values
            click.echo(f"{title}: " + ", ".join(f"{key} {value:.4g}" for key, value in values.items()))

        single = alone(service, [large], request, 15)
        show("1 megapixel, one at a time, ms", {**single, "ratio": single["service"] / single["run_job"]})
        rates = beside_a_folder(service, [large], request, 48)
        show("1 megapixel, 16 clients, a second", {**rates, "ratio": rates["service"] / rates["folder"]})

        with Inpainter() as inpaint:
            expected = run_job(small, lambda: inpaint).data
        start = time.perf_counter()
        asyncio.run(closed_loop(service.port, small_request, _CLIENTS, 96))
        capacity = 96 / (time.perf_counter() - start)
        show("299x299 pixels, capacity", {"per_second": capacity})
        rows = [under_load(service, small_request, expected, capacity, load, seconds) for load in _LOADS]
        click.echo(" ".join(f"{key:>10}" for key in rows[0]))
        for row in rows:
            click.echo(" ".join(f"{value:>10.4g}" for value in row.values()))
        results["loads"] = rows
        show("workers killed", killed_workers(service, small_request, 5, 200))
        show("malformed", malformed(service, small_request, malformed_count))
        click.echo(json.dumps(results))


if __name__ == "__main__":
    main()
