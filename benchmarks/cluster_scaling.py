"""`python -m benchmarks.cluster_scaling GRAPH`: what a Ray cluster costs, and what it would do with many nodes.

Measured: photographs of 1 megapixel a second with 1 and 2 workers, in a folder run and on a cluster of nodes with one
CPU each, in turns; the time of the driver for a photograph. Computed from that and from what is assumed: photographs an
hour, hours and cost for a million, for 1 to 100 nodes, and what ends the growth.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import ray
from ray.cluster_utils import Cluster

from benchmarks.throughput import write_mosaic
from cisi_runtime.backends.registry import SHIPPED_INT8_GRAPH, BackendOptions
from cisi_runtime.batch.cluster import ClusterOptions, run_on_cluster
from cisi_runtime.batch.folder import plan_folder
from cisi_runtime.batch.job import Job, JobSummary
from cisi_runtime.batch.photograph import DEFAULT_OPTIONS
from cisi_runtime.batch.workers import WorkerOptions, run_jobs, start_workers
from cisi_runtime.errors import CisiError
from cisi_runtime.pictures.pillow import prepare_for_photographs

_PHOTOGRAPHS, _ROUNDS, _DRIVER_JOBS = 40, 3, 4000
# Results before the clock starts: every worker has started and done a photograph.
_WARM = 4
# Assumed, for the model.
_CORES = 8  # of a node
_NODE_DOLLARS = 0.20  # an hour, spot price of 8 virtual CPUs
_MEGABYTES_IN, _MEGABYTES_OUT = 0.45, 0.45  # a photograph of 1 megapixel, mask included
_NODE_GIGABITS = 10.0
_LIST_NAMES = 1000 / 0.1  # a second: pages of 1,000 names in 100 ms
_PUTS, _GETS = 3500, 5500  # a second and prefix (S3 user guide, "Optimizing performance")


def rate(results: Iterable[tuple[Job, JobSummary | CisiError]]) -> float:
    """Photographs a second, from the moment when `_WARM` of them are done."""
    ends = []
    for _, result in results:
        if isinstance(result, CisiError):
            raise result
        ends.append(time.perf_counter())
    # To the last result: the end of workers and cluster is another matter.
    return (len(ends) - _WARM) / (ends[-1] - ends[_WARM - 1])


def on_this_machine(
    jobs: list[Job], options: WorkerOptions, workers: int
) -> Iterator[tuple[Job, JobSummary | CisiError]]:
    """A folder run."""
    pool, run = start_workers(options, options.open(), workers)
    return run_jobs(jobs, run, pool, 2 * workers)


def quiet(_: str) -> None:
    """What a run tells."""


def throughputs(jobs: list[Job], options: WorkerOptions, address: str) -> dict[str, float]:
    """Medians of photographs a second, by place and number of workers, and of the ratios within a round."""
    found: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        for workers in (1, 2):
            here = rate(on_this_machine(jobs, options, workers))
            there = rate(run_on_cluster(jobs, ClusterOptions(address, workers=workers), options, quiet))
            again = rate(on_this_machine(jobs, options, workers))
            here = (here + again) / 2
            for name, value in (("folder run", here), ("cluster", there), ("cluster of folder run", there / here)):
                found.setdefault(f"{name}, {workers}", []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def driver_seconds(options: WorkerOptions, address: str, folder: Path) -> float:
    """CPU time of the driver for a photograph, from photographs that are not there."""
    job = Job(folder / "none.jpg", folder / "none.png", folder / "out.jpg")
    before = 0.0
    number = 0
    for number, _ in enumerate(run_on_cluster([job] * _DRIVER_JOBS, ClusterOptions(address), options, quiet), 1):
        if number == _WARM:
            before = _cpu_seconds()
    return (_cpu_seconds() - before) / (number - _WARM)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def model(per_core: float, efficiency: float, driver_s: float) -> list[dict[str, float | str]]:
    """Rows for 1 to 100 nodes. per_core: photographs a second of a folder run with one worker. efficiency: of a cluster
    against it, with a worker for each core."""
    per_node = per_core * efficiency * _CORES
    limits = {
        "driver": 1 / driver_s,
        "reads of one prefix": _GETS / 2,  # photograph and mask
        "writes of one prefix": float(_PUTS),
        "the nodes' bandwidth": float("inf") if per_node * _MEGABYTES_IN < 125 * _NODE_GIGABITS else 0.0,
    }
    name, limit = min(limits.items(), key=lambda item: item[1])
    rows: list[dict[str, float | str]] = []
    for nodes in (1, 2, 5, 10, 20, 50, 100):
        speed = min(nodes * per_node, limit)
        hours = 1e6 / speed / 3600
        # Photographs, masks and results are listed before the first is begun.
        listing_hours = 3 * 1e6 / _LIST_NAMES / 3600
        rows.append(
            {
                "nodes": nodes,
                "photographs an hour": 3600 * speed,
                "hours for a million": hours + listing_hours,
                "dollars for a million": nodes * (hours + listing_hours) * _NODE_DOLLARS,
                "limit": name if nodes * per_node >= limit else "cores",
            }
        )
    return rows


@click.command()
@click.argument("graph", type=click.Path(path_type=Path, exists=True), default=SHIPPED_INT8_GRAPH)
def main(graph: Path) -> None:
    """Measure GRAPH (default: the one that ships). Some five minutes. Leave the machine alone meanwhile."""
    prepare_for_photographs()  # as every process of `cisi-run`
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number in range(_PHOTOGRAPHS):
                write_mosaic(folder, str(number), 1155, 866, seed=number)
            with plan_folder(folder / "photos", folder / "masks", folder / "out") as plan:
                jobs = list(plan.jobs())
            options = WorkerOptions(graph, BackendOptions("onnxruntime", threads=1), detail=True, job=DEFAULT_OPTIONS)
            found = throughputs(jobs, options, str(cluster.address))
            for title, value in found.items():
                click.echo(f"{title} workers: {value:.3f}" + ("" if " of " in title else " photographs/s"))
            efficiency = found["cluster, 2"] / (2 * found["cluster, 1"])
            click.echo(f"efficiency of 2 workers: {efficiency:.3f}; of a folder run: "
                       f"{found['folder run, 2'] / (2 * found['folder run, 1']):.3f}")  # fmt: skip
            driver_s = driver_seconds(options, str(cluster.address), folder)
            click.echo(f"driver: {1e3 * driver_s:.2f} ms of CPU a photograph, so at most {1 / driver_s:.0f} a second")
    finally:
        ray.shutdown()
        cluster.shutdown()
    rows = model(found["folder run, 1"], found["cluster, 2"] / (2 * found["folder run, 1"]), driver_s)
    for row in rows:
        click.echo(
            f"{row['nodes']:>4} nodes: {row['photographs an hour']:>12,.0f} an hour, a million in "
            f"{row['hours for a million']:6.2f} h for ${row['dollars for a million']:.2f}; limit: {row['limit']}"
        )
    click.echo(json.dumps({"measured": found, "driver_ms": 1e3 * driver_s, "model": rows}))


if __name__ == "__main__":
    main()
