"""`cisi-bench`: artifacts and backends side by side, in one run."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_runtime.backends.registry import BACKENDS, DEVICES, PRECISIONS, BackendOptions
from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import LOUDNESS, say, say_json
from cisi_runtime.errors import GraphError, error_prefix

if TYPE_CHECKING:
    from cisi_runtime.batch.job import Job
    from cisi_runtime.bench.measure import Latency, NetworkRow, PhotographRow, Setting

_PLOTS = (".png", ".svg", ".pdf")
_NOTES = """\
prepare: windows are cut out. copy in, run, copy out: the network. finish: its fill is blended.
check: the result is decoded again, to say how much known pixels changed.
Results go to the system's cache and the photograph was read before: the disk is not measured. One
photograph at a time; the network alone has no files, windows or blending. On a GPU "run" includes
the copies between host and device. Compare only figures of one run."""


@dataclasses.dataclass(frozen=True)
class BenchOptions:
    """What `cisi-bench` was asked to do; each field is the option of its name."""

    artifacts: tuple[Path, ...]
    backends: tuple[str, ...]
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: list[int]
    image: Path | None
    mask: Path | None
    batches: list[int]
    size: int
    rounds: int
    plot: Path | None


@command(
    summary="Measure latency, memory and quality side by side.",
    verbose="Also the machine and the versions of the libraries.",
)
@click.argument("artifacts", nargs=-1, type=PATH)
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(BACKENDS),
    help="May be given several times; each artifact runs in those that take it.  [default: auto]",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=click.Choice(DEVICES),
    help="May be given twice; each backend runs on those that it takes.  [default: auto]",
)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(PRECISIONS),
    help="May be given twice; bf16 runs where a backend has it.  [default: stored]",
)
@click.option("--threads", default="0", help="Numbers, such as 1,2; 0: the backend's own choice.  [default: 0]")
@click.option("--image", type=PATH, help="Photograph; default: a generated one, 1600x1200, JPEG.")
@click.option("--mask", type=PATH, help="Its hole mask; default: 300x300 pixels.")
@click.option("--batch", "batches", default="1,4", show_default=True, help="Pictures at a time, for the network alone.")
@click.option("--size", type=click.IntRange(64), default=256, show_default=True, help="Sides of those pictures.")
@click.option("--rounds", type=click.IntRange(3), default=20, show_default=True)
@click.option("--plot", type=PATH, help="Also draw where the time goes (.png, .svg or .pdf).")
def bench(threads: str, batches: str, **values: Any) -> None:
    """Measure ARTIFACTS (graphs, engines, checkpoints; default: the graphs that ship) side by side.

    Measures a photograph from file to file, with its stages, and the network alone on pixels in memory. The settings
    take turns in every round.
    """
    if (values["image"] is None) != (values["mask"] is None):
        raise click.UsageError("--image and --mask go together")
    options = BenchOptions(
        threads=_numbers("--threads", threads, minimum=0), batches=_numbers("--batch", batches, minimum=1), **values
    )
    _check_plot(options.plot)
    settings = _settings(options)
    from cisi_runtime.bench.measure import bench_network, bench_photograph, check_job
    from cisi_runtime.pictures.pillow import prepare_for_photographs

    prepare_for_photographs()  # as every process of `cisi-run`
    with tempfile.TemporaryDirectory(prefix="cisi-bench-") as folder:
        job = _job(Path(folder), options)
        check_job(job)
        with error_prefix("ARTIFACTS"):
            network = bench_network(settings, options.batches, options.size, options.rounds)
            photograph = bench_photograph(settings, job, options.rounds)
    say_json(_as_json(options, photograph, network))
    say(_tables(options, job.image.name, settings, photograph, network))
    if options.plot is not None:
        from cisi_runtime.bench.plot import plot_stages

        with error_prefix("--plot"):
            plot_stages(photograph, options.plot)
        say(f"{options.plot}: written")


def _numbers(name: str, text: str, *, minimum: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < minimum:
        raise click.UsageError(f"{name}: {text!r}, expected numbers from {minimum} on, such as 1,2")
    return numbers


def _check_plot(plot: Path | None) -> None:
    """Everything that a plot needs, before anything is measured."""
    from cisi_runtime.files import check_writable

    if plot is None:
        return
    with error_prefix("--plot"):
        check_writable(plot)
    if plot.suffix not in _PLOTS:
        raise click.UsageError(f"--plot: {plot}: expected a name that ends with {', '.join(_PLOTS)}")
    import matplotlib  # noqa: F401


def _settings(options: BenchOptions) -> list[Setting]:
    """Every artifact in every backend that takes such a file, in every precision, with every number of threads."""
    from cisi_runtime.backends.registry import (
        SHIPPED_GRAPH,
        SHIPPED_INT8_GRAPH,
        backend_accepts,
        device_accepts,
        threads_apply,
    )
    from cisi_runtime.bench.measure import Setting

    settings = []
    for artifact in options.artifacts or (SHIPPED_INT8_GRAPH, SHIPPED_GRAPH):
        if not artifact.is_file():
            raise GraphError(f"ARTIFACTS: {artifact}: no such file")
        backends = [backend for backend in options.backends or ("auto",) if backend_accepts(backend, artifact)]
        if not backends:
            raise GraphError(f"ARTIFACTS: {artifact}: none of {', '.join(options.backends)} takes it")
        precisions = options.precisions or ("stored",)
        settings += [
            Setting(artifact, BackendOptions(backend, device, precision, threads))
            for backend, device, precision, threads in itertools.product(
                backends, options.devices or ("auto",), precisions, options.threads
            )
            if device_accepts(device, backend, artifact)
            and (threads <= 1 or threads_apply(BackendOptions(backend, device), artifact))
            and _runs_in(precision, backend, artifact)
            and (options.artifacts or device != "cuda" or artifact != SHIPPED_INT8_GRAPH)  # made for CPUs
        ]
    if not settings and options.devices:
        raise GraphError(
            f"--device {', '.join(options.devices)}: nothing of ARTIFACTS, --backend and --threads runs there"
        )
    if not settings:
        raise GraphError("--precision bf16: expected a float32 graph with --backend openvino, or a checkpoint")
    return settings


def _runs_in(precision: str, backend: str, artifact: Path) -> bool:
    """Whether a setting is measured. INT8 graphs gain nothing by bf16, which backends refuse."""
    from cisi_runtime.backends.graph import read_graph
    from cisi_runtime.backends.registry import precision_accepts

    if precision == "stored":
        return True
    if not precision_accepts(precision, backend, artifact):
        return False
    return artifact.suffix != ".onnx" or read_graph(artifact).contract.precision == "float32"


def _job(folder: Path, options: BenchOptions) -> Job:
    """The photograph of --image, or generated noise that is as smooth as photographs."""
    from cisi_runtime.batch.job import Job

    if options.image is not None:
        return Job(options.image, options.mask, folder / f"result{options.image.suffix}")
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    layers = [rng.normal(0, 20, (1200 // step, 1600 // step, 3)).repeat(step, 0).repeat(step, 1) for step in (1, 4, 80)]
    pixels = np.clip(128 + 0.2 * layers[0] + 0.5 * layers[1] + 2 * layers[2], 0, 255).astype(np.uint8)
    hole = np.zeros((1200, 1600), dtype=np.uint8)
    hole[500:800, 600:900] = 255
    Image.fromarray(pixels).save(folder / "generated.jpg", quality=92)
    Image.fromarray(hole).save(folder / "generated.mask.png")
    return Job(folder / "generated.jpg", folder / "generated.mask.png", folder / "result.jpg")


def _tables(
    options: BenchOptions,
    name: str,
    settings: list[Setting],
    photograph: list[PhotographRow],
    network: list[NetworkRow],
) -> str:
    """Everything within 100 columns: the settings by number, then a table for each question."""
    numbers = {setting: number for number, setting in enumerate(settings, 1)}
    stages = list(photograph[0].stages)
    lines = [f"{number:>2}  {setting.name}" for setting, number in numbers.items()]
    lines += ["", f"{name}, from file to file, {options.rounds} rounds", f" #  {_LATENCY_HEAD}"]
    first = photograph[0].latency
    lines += [f"{numbers[row.setting]:>2}  {_latency(row.latency, first)}" for row in photograph]
    lines += ["", "median of each stage, ms", " #  " + " ".join(f"{stage:>9}" for stage in stages)]
    for row in photograph:
        lines.append(f"{numbers[row.setting]:>2}  " + " ".join(f"{row.stages[stage]:9.1f}" for stage in stages))
    lines += ["", "first photograph of a process", f" #  {'start-up':>9} {'first call':>11} {'peak':>9} {'quality':>9}"]
    for row in photograph:
        cold = row.cold_start
        lines.append(
            f"{numbers[row.setting]:>2}  {cold.start_up_s:7.2f} s {cold.first_call_ms:8.0f} ms {cold.peak_mb:6.0f} MB "
            f"{_quality(row.quality_db):>9}"
        )
    lines += ["", f"the network alone, {options.size}x{options.size}, {options.rounds} rounds"]
    lines.append(f" #  batch  {_LATENCY_HEAD}")
    for network_row in network:
        latency = _latency(network_row.latency, network[0].latency)
        lines.append(f"{numbers[network_row.setting]:>2}  {network_row.batch:>5}  {latency}")
    if LOUDNESS.verbose:
        from cisi_runtime.backends.machine import machine_facts

        machine = machine_facts()
        processor = ", ".join([machine["processor"], *machine["instruction_sets"]])
        lines += ["", f"{processor}, {machine['cores']} cores, {machine['machine']}, Python {machine['python']}"]
        lines += [f"{name} {version}" for name, version in machine["versions"].items()]
    return "\n".join([*lines, "", _NOTES])


_LATENCY_HEAD = f"{'p50 ms':>8} {'p95':>8} {'p99':>8} {'min':>8} {'/s':>7} {'ratio':>6}"


def _latency(latency: Latency, first: Latency) -> str:
    return (
        f"{latency.p50:8.1f} {latency.p95:8.1f} {latency.p99:8.1f} {latency.minimum:8.1f} {latency.per_second:7.1f} "
        f"{latency.per_second / first.per_second:6.2f}"
    )


def _quality(quality_db: float | None) -> str:
    if quality_db is None:
        return "-"
    return f"{quality_db:.1f} dB" if quality_db < inf else "exact"


def _as_json(options: BenchOptions, photograph: list[PhotographRow], network: list[NetworkRow]) -> dict[str, Any]:
    from cisi_runtime.backends.machine import machine_facts

    def as_dict(row: PhotographRow | NetworkRow) -> dict[str, Any]:
        values = dataclasses.asdict(row)
        if values.get("quality_db") == inf:  # which JSON does not know
            values["quality_db"] = "exact"
        setting = {"artifact": str(row.setting.artifact), **values["setting"]["options"]}
        return values | {"setting": setting}

    return {
        **machine_facts(),
        "rounds": options.rounds,
        "size": options.size,
        "photograph": [as_dict(row) for row in photograph],
        "network": [as_dict(row) for row in network],
    }


def main() -> None:
    """Entry point of `cisi-bench`."""
    run_command(bench, "cisi-bench")
