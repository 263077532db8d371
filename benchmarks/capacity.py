"""`python -m benchmarks.capacity`: which width of the network makes the best guide in equal hours of training.

First the seconds of a step are measured, width by width in turns. From them follow the steps that each has in
`--minutes` of one thread. They are written down, so that a run that is resumed, or that shares the machine, is as long:
see `resumable_runs`. All widths see the same crops and holes in the same order, as far as they come. The losses are
those of image and codes (`--l1-first 1`), with which most of the shipped weights' training was done.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from filelock import FileLock

from benchmarks.ablation_table import MAX_SEEDS, Figures, quality_table
from benchmarks.resumable_runs import RESULT, Run, check_budget, checkpoint_method, unfinished, write_json
from cisi_export.exporting import GraphOptions, export_graph
from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.registry import BackendOptions, open_backend
from cisi_runtime.bench.measure import interleaved
from cisi_runtime.cli.command import INTERRUPTED, PATH, run_command
from cisi_runtime.errors import CheckpointError
from cisi_runtime.files import make_folder
from cisi_runtime.inpainting.single_pass import SinglePassInpainter
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.resizing import read_square
from cisi_runtime.strict_json import convert, read_json
from cisi_train.checkpoint import load_checkpoint
from cisi_train.data import PhotoFolder, open_folder
from cisi_train.evaluate import Method, Metrics, baseline_method, evaluate, hole_sets, pictures_of
from cisi_train.network import Generator
from cisi_train.precision import computes_bf16
from cisi_train.recipe import Recipe

# Side of the picture whose latency is measured: that of the windows of `cisi-run`.
_SIDE = 256
# Measured rounds, after one that warms up, of a training step; pictures that the latency is the median of.
_STEP_ROUNDS, _LATENCY_ROUNDS = 3, 15
_TELEA = "OpenCV Telea, radius 5"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Of one width: seconds of a step on the machine where the runs began, and the steps in the time that each has."""

    seconds_per_step: float
    steps: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all runs of a folder have in common, by the command's options."""

    minutes: float
    size: int
    batch: int
    lr: float
    bf16: bool
    data_sha256: str

    def run(self, dim: int, steps: int, seed: int) -> Run:
        """The run of a width."""
        return Run(
            preset=_preset(dim),
            steps=steps,
            size=self.size,
            batch=self.batch,
            lr=self.lr,
            seed=seed,
            l1_first=1.0,
            save_every=max(1, steps // 20),
            recipe=Recipe(select="last"),
            permute_colours=True,
            bf16=self.bf16,
        )


def _preset(dim: int) -> str:
    return f"dim-{dim}"


def seconds_per_step(settings: Settings, dims: Sequence[int], folder: PhotoFolder, out: Path) -> dict[int, float]:
    """Median seconds of a processor for a training step of each width, measured in turns on made pictures. out: a
    folder of runs; nothing is written there."""
    trainers = {dim: settings.run(dim, steps=10**6, seed=0).trainer(folder, out / "unused") for dim in dims}
    image = torch.rand(settings.batch, 3, settings.size, settings.size) * 2 - 1
    holes = torch.zeros(settings.batch, 2, 1, settings.size, settings.size)
    holes[..., : settings.size // 2, : settings.size // 2] = 1.0
    times: dict[int, list[float]] = {dim: [] for dim in dims}
    for number in range(1 + _STEP_ROUNDS):
        for dim, trainer in trainers.items():
            start = time.process_time()
            trainer.train_step(image, holes, progress=0.0)
            if number:
                times[dim].append(time.process_time() - start)
    return {dim: statistics.median(each) for dim, each in times.items()}


def plan_of(out: Path, settings: Settings, dims: Sequence[int], folder: PhotoFolder) -> dict[int, Plan]:
    """The plan that the folder has, or a new one. Raises CheckpointError where it has one for other widths."""
    path = out / "plan.json"
    with FileLock(out / "plan.lock"):
        if not path.exists():
            measured = seconds_per_step(settings, dims, folder, out)
            plans = {dim: Plan(each, max(1, round(60.0 * settings.minutes / each))) for dim, each in measured.items()}
            write_json(path, {str(dim): dataclasses.asdict(plan) for dim, plan in plans.items()})
    values = read_json(path, str(path), CheckpointError)
    if set(values) != {str(dim) for dim in dims}:
        raise CheckpointError(f"{path}: is for dim {', '.join(values)}; choose these, or another --out")
    return {dim: convert(values[str(dim)], Plan, f"{path}: {dim}", CheckpointError) for dim in dims}


def measure(name: str, method: Method, vals: Sequence[Path], size: int) -> dict[str, Figures]:
    """Means over the centre holes of each folder, by its path. size: of the pictures, the one trained with: what a
    width carries is asked here, not how a network does at sizes that it has never seen."""
    found = {}
    for val in vals:
        measured = evaluate(name, method, val, hole_sets("centre", size)[0], Metrics())
        found[str(val)] = Figures(measured.l1_percent, measured.psnr_db, measured.ssim)
    return found


def read_result(path: Path, vals: Sequence[Path]) -> dict[str, Figures]:
    """The figures of a run for each folder. Raises CheckpointError for a damaged file, and for other folders."""
    values = read_json(path, str(path), CheckpointError)
    return {str(val): convert(values.get(str(val)), Figures, f"{path}: {val}", CheckpointError) for val in vals}


def milliseconds(checkpoints: Mapping[int, Path], vals: Sequence[Path]) -> dict[int, float]:
    """Median time of one picture of 256x256 in the float32 graph of each width, on all cores, measured in turns."""
    methods = {}
    for dim, path in checkpoints.items():
        graph = path.with_suffix(".onnx")
        if not graph.exists():
            export_graph(load_checkpoint(path), GraphOptions(size=(_SIDE, _SIDE), batch=1)).save(graph)
        methods[dim] = SinglePassInpainter(open_backend(graph, BackendOptions(device="cpu"))[0])
    picture, hole = read_square(pictures_of(vals[0])[0], _SIDE), centre_hole(_SIDE, _SIDE)
    calls = [functools.partial(method, picture, hole) for method in methods.values()]
    times = interleaved(calls, _LATENCY_ROUNDS, warm=True)
    return {dim: statistics.median(each) for dim, each in zip(methods, times, strict=True)}


def report(
    vals: Sequence[Path], settings: Settings, plans: Mapping[int, Plan], runs: Mapping[Path, tuple[int, int]]
) -> list[str]:
    """The tables of what is finished: quality on each folder, and what the widths cost."""
    finished: dict[int, dict[int, dict[str, Figures]]] = {dim: {} for dim in plans}
    checkpoints: dict[int, Path] = {}
    for run, (dim, seed) in runs.items():
        if (run / RESULT).exists():
            finished[dim][seed] = read_result(run / RESULT, vals)
            checkpoints.setdefault(dim, run / "best.pt")
    telea = measure("telea", baseline_method("telea"), vals, settings.size)
    lines = [", ".join(f"{name} {value}" for name, value in dataclasses.asdict(settings).items() if "sha" not in name)]
    for val in map(str, vals):
        arms = {f"dim {dim}": {seed: found[val] for seed, found in finished[dim].items()} for dim in plans}
        lines += ["", val, "", *quality_table(arms, {_TELEA: telea[val]})]
    lines += ["", "| | Parameters | Step | Steps | Latency of a picture |", "|---|---|---|---|---|"]
    times = milliseconds(checkpoints, vals)
    for dim, plan in plans.items():
        parameters = sum(each.numel() for each in Generator(PRESETS[_preset(dim)]).parameters())
        latency = f"{times[dim]:.0f} ms" if dim in times else "not there"
        lines.append(f"| dim {dim} | {parameters:,} | {plan.seconds_per_step:.2f} s | {plan.steps:,} | {latency} |")
    return lines


def _parse_dims(_context: click.Context, _parameter: click.Parameter, text: str) -> list[int]:
    try:
        dims = [int(word) for word in text.split(",")]
    except ValueError:
        dims = []
    if not dims or min(dims) < 1 or len(set(dims)) < len(dims):
        raise click.BadParameter(f"expected different whole numbers like 24,32,40, got {text!r}")
    return dims


@click.command()
@click.option("--data", type=PATH, required=True, help="Photographs to train on.")
@click.option("--val", "vals", type=PATH, required=True, multiple=True, help="Others to measure on; can be repeated.")
@click.option("--out", type=PATH, default="runs/capacity", show_default=True, help="Folder of the runs.")
@click.option("--dims", callback=_parse_dims, default="24,32,40", show_default=True, help="Channels.")
@click.option("--seeds", type=click.IntRange(1, MAX_SEEDS), default=1, show_default=True)
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=120, show_default=True, help="Of each run.")
@click.option("--size", type=click.IntRange(64), default=128, show_default=True, help="Side of the crops.")
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True)
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True)
@click.option("--bf16/--no-bf16", default=None, help="Default: bfloat16 where the CPU computes it.")
@click.option("--table", "table_only", is_flag=True, help="Train nothing: the table of what is finished.")
def compare(
    data: Path,
    vals: tuple[Path, ...],
    out: Path,
    dims: list[int],
    seeds: int,
    bf16: bool | None,
    table_only: bool,
    **values: Any,
) -> None:
    """Train every width for as long, and print how good and how fast each is.

    Start it in as many processes as there are cores; each takes the next run that nobody works on. The first one
    measures the steps: let nothing else run meanwhile.
    """
    torch.set_num_threads(1)
    folder = open_folder(data)
    for val in vals:
        pictures_of(val)  # told of now, not after hours of training
    bf16 = computes_bf16("cpu") if bf16 is None else bf16
    settings = Settings(**values, bf16=bf16, data_sha256=folder.sha256)
    make_folder(out)
    check_budget(out / "budget.json", dataclasses.asdict(settings))
    with mock.patch.dict(PRESETS, {_preset(dim): dataclasses.replace(PRESETS["small"], dim=dim) for dim in dims}):
        plans = plan_of(out, settings, dims, folder)
        runs = {out / f"dim-{dim}-{seed}": (dim, seed) for seed in range(seeds) for dim in dims}
        for run in unfinished([] if table_only else runs):
            dim, seed = runs[run]
            click.echo(f"dim {dim}, seed {seed}: {plans[dim].steps:,} steps in {run}", err=True)
            if not settings.run(dim, plans[dim].steps, seed).train(folder, run):
                sys.exit(INTERRUPTED)
            found = measure(f"dim {dim}", checkpoint_method(run / "best.pt"), vals, settings.size)
            write_json(run / RESULT, {val: dataclasses.asdict(figures) for val, figures in found.items()})
        click.echo("\n".join(report(vals, settings, plans, runs)))


def main() -> None:
    """Entry point of `python -m benchmarks.capacity`."""
    run_command(compare, "python -m benchmarks.capacity")


if __name__ == "__main__":
    main()
