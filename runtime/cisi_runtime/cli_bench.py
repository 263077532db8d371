"""`cisi-bench`: artifacts and backends side by side, in one run."""

from __future__ import annotations

import itertools
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_runtime.command import option, run_command

if TYPE_CHECKING:
    from cisi_runtime.benching import NetworkRow, PhotographRow

_PLOTS = (".png", ".svg", ".pdf")
_EXCLUDED = """\
Excluded: writing to the disk itself (results go to the system's cache) and reading from it (the file has been read
before). A photograph's rows have one photograph at a time; the network's have no files, no windows and no joining. On a
GPU the copies between both memories are in "run". Compare figures of one run
with each other only."""


@click.command()
@click.argument("artifacts", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--backend",
    "backends",
    multiple=True,
    type=click.Choice(["auto", "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt", "torch"]),
    help="May be given several times; each artifact runs in those that take it.  [default: auto]",
)
@click.option("--threads", default="0", help="Numbers, such as 1,2; 0: the backend's own choice.  [default: 0]")
@click.option("--image", type=click.Path(path_type=Path), help="Photograph; default: a made one, 1600x1200, JPEG.")
@click.option("--mask", type=click.Path(path_type=Path), help="Its hole mask; default: 300x300 pixels.")
@click.option("--batch", "batches", default="1,4", show_default=True, help="Pictures at a time, of the network alone.")
@click.option("--size", type=click.IntRange(64), default=256, show_default=True, help="Sides of those pictures.")
@click.option("--rounds", type=click.IntRange(3), default=20, show_default=True)
@click.option("--plot", type=click.Path(path_type=Path), help="Also draw where the time goes (.png, .svg or .pdf).")
def bench(
    artifacts: tuple[Path, ...],
    backends: tuple[str, ...],
    threads: str,
    image: Path | None,
    mask: Path | None,
    batches: str,
    size: int,
    rounds: int,
    plot: Path | None,
) -> None:
    """Measure ARTIFACTS (graphs, engines, checkpoints; default: the graph that ships) beside each other.

    Two tables: a photograph from file to file, with its stages, and the network alone on pixels in memory. The settings
    take turns in every round. The last line is all of it as JSON.
    """
    if (image is None) != (mask is None):
        raise click.UsageError("--image and --mask go together")
    numbers = _numbers("--threads", threads, least=0), _numbers("--batch", batches, least=1)
    import json
    import tempfile

    from cisi_runtime.benching import bench_network, bench_photograph
    from cisi_runtime.files import check_writable

    if plot is not None:
        with option("--plot"):
            check_writable(plot)
        import matplotlib  # noqa: F401  (better now than after the measurement)

        if plot.suffix not in _PLOTS:
            raise click.UsageError(f"--plot: {plot}: expected a name that ends with {', '.join(_PLOTS)}")
    settings = _settings(artifacts, backends, numbers[0])
    with tempfile.TemporaryDirectory(prefix="cisi-bench-") as folder:
        job = _job(Path(folder), image, mask)
        with option("ARTIFACTS"):
            network = bench_network(settings, numbers[1], size, rounds)
            photograph = bench_photograph(settings, job, rounds)
        click.echo(_photograph_table(photograph, job.image.name, rounds))
    click.echo(_network_table(network, size, rounds))
    click.echo(_EXCLUDED)
    if plot is not None:
        from cisi_runtime.bench_plot import plot_stages

        with option("--plot"):
            plot_stages(photograph, plot)
        click.echo(f"{plot}: written")
    click.echo(json.dumps(_as_json(photograph, network, size, rounds), allow_nan=False))


def _numbers(name: str, text: str, *, least: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < least:
        raise click.UsageError(f"{name}: {text!r}, expected numbers from {least} on, such as 1,2")
    return numbers


def _settings(artifacts: tuple[Path, ...], backends: tuple[str, ...], threads: list[int]) -> list[Any]:
    """Every artifact in every backend that takes such a file, with every number of threads."""
    from cisi_runtime.backends.opening import takes
    from cisi_runtime.benching import Setting
    from cisi_runtime.errors import GraphError
    from cisi_runtime.inpainter import SHIPPED_GRAPH

    settings = []
    for artifact in artifacts or (SHIPPED_GRAPH,):
        if not artifact.is_file():
            raise GraphError(f"ARTIFACTS: {artifact}: no such file")
        fitting = [backend for backend in backends or ("auto",) if takes(backend, artifact)]
        if not fitting:
            raise GraphError(f"ARTIFACTS: {artifact}: none of {', '.join(backends)} takes it")
        settings += [Setting(artifact, *chosen) for chosen in itertools.product(fitting, threads)]
    return settings


def _job(folder: Path, image: Path | None, mask: Path | None) -> Any:
    """The photograph that was named, or one of noise that is as smooth as photographs are."""
    from cisi_runtime.jobs import Job

    if image is not None:
        return Job(image, mask, folder / f"result{image.suffix}")
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    layers = [rng.normal(0, 20, (1200 // step, 1600 // step, 3)).repeat(step, 0).repeat(step, 1) for step in (1, 4, 80)]
    pixels = np.clip(128 + 0.2 * layers[0] + 0.5 * layers[1] + 2 * layers[2], 0, 255).astype(np.uint8)
    hole = np.zeros((1200, 1600), dtype=np.uint8)
    hole[500:800, 600:900] = 255
    Image.fromarray(pixels).save(folder / "made.jpg", quality=92)
    Image.fromarray(hole).save(folder / "made.mask.png")
    return Job(folder / "made.jpg", folder / "made.mask.png", folder / "result.jpg")


def _photograph_table(rows: list[PhotographRow], name: str, rounds: int) -> str:
    stages = list(rows[0].stages)
    head = f"{'ms':<44} {'p50':>7} {'p95':>7} {'p99':>7} {'min':>7} {'/s':>6} {'ratio':>6}  "
    head += " ".join(f"{stage:>8}" for stage in stages) + f"  {'start-up':>8} {'first':>7} {'peak':>8} {'quality':>8}"
    lines = [f"{name}, from file to file, {rounds} rounds; stages: medians", head]
    for row in rows:
        latency, first = row.latency, row.first
        quality = "-" if row.quality_db is None else f"{row.quality_db:.1f} dB" if row.quality_db < inf else "exact"
        lines.append(
            f"{row.setting.name:<44} {latency.p50:7.1f} {latency.p95:7.1f} {latency.p99:7.1f} {latency.least:7.1f} "
            f"{latency.per_second:6.1f} {rows[0].latency.p50 / latency.p50:6.2f}  "
            + " ".join(f"{row.stages[stage]:8.1f}" for stage in stages)
            + f"  {first.start_up_s:6.2f} s {first.first_call_ms:7.0f} {first.peak_mb:5.0f} MB {quality:>8}"
        )
    return "\n".join(lines) + "\n"


def _network_table(rows: list[NetworkRow], size: int, rounds: int) -> str:
    lines = [
        f"the network alone, {size}x{size}, {rounds} rounds",
        f"{'ms':<44} {'batch':>5} {'p50':>7} {'p95':>7} {'p99':>7} {'min':>7} {'/s':>6} {'ratio':>6}",
    ]
    for row in rows:
        latency = row.latency
        lines.append(
            f"{row.setting.name:<44} {row.batch:>5} {latency.p50:7.1f} {latency.p95:7.1f} {latency.p99:7.1f} "
            f"{latency.least:7.1f} {latency.per_second:6.1f} {latency.per_second / rows[0].latency.per_second:6.2f}"
        )
    return "\n".join(lines) + "\n"


def _as_json(photograph: list[PhotographRow], network: list[NetworkRow], size: int, rounds: int) -> dict[str, Any]:
    import dataclasses
    import platform
    from importlib.metadata import PackageNotFoundError, version

    from cisi_runtime.folders import default_threads

    versions = {}
    for package in ("cisi-net", "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue

    def flat(row: PhotographRow | NetworkRow) -> dict[str, Any]:
        values = dataclasses.asdict(row)
        if values.get("quality_db") == inf:  # which JSON does not know
            values["quality_db"] = "exact"
        return values | {"setting": {**values["setting"], "artifact": row.setting.artifact.name}}

    return {
        "cores": default_threads(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "versions": versions,
        "rounds": rounds,
        "size": size,
        "photograph": [flat(row) for row in photograph],
        "network": [flat(row) for row in network],
    }


def main() -> None:
    """Entry point of `cisi-bench`."""
    run_command(bench, "cisi-bench")
