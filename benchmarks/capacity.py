"""`python -m benchmarks.capacity`: which width of the network makes the best guide in equal hours of training.

First the time of a step is measured, width by width in turns. From it follow the steps that each has in `--minutes` of
one thread. They are written down, so that a run that is resumed, or that shares the machine, has the same number of
steps: see `resumable_runs`. All widths see the same crops and holes in the same order, as far as each gets. The losses
are those of image and codes (`--l1-first 1`), with which most of the shipped weights' training was done.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import click
import torch
from filelock import FileLock

from benchmarks.ablation_table import MAX_SEEDS, Figures, quality_table
from benchmarks.resumable_runs import (
    RESULT,
    Run,
    check_budget,
    checkpoint_method,
    open_measured,
    unfinished,
    write_json,
)
from cisi_export.exporting import GraphOptions, export_graph
from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.registry import BackendOptions, open_backend
from cisi_runtime.bench.measure import interleaved
from cisi_runtime.cli.command import INTERRUPTED, PATH, run_command
from cisi_runtime.cli.numbers import FiniteRange
from cisi_runtime.errors import CheckpointError
from cisi_runtime.files import make_folder
from cisi_runtime.inpainting.single_pass import SinglePassInpainter
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.resizing import read_square
from cisi_runtime.strict_json import convert, read_json
from cisi_train.checkpoint import load_checkpoint
from cisi_train.cli_train import check_size
from cisi_train.data import PhotoFolder, open_folder
from cisi_train.evaluate import Method, Metrics, baseline_method, evaluate, hole_sets
from cisi_train.network import Generator
from cisi_train.precision import computes_bf16
from cisi_train.recipe import Recipe

# Side of the picture whose latency is measured: that of the windows of `cisi-run`.
_SIDE = 256
# Measured rounds, after one that warms up, of a training step; pictures that the latency is the median of.
_STEP_ROUNDS, _LATENCY_ROUNDS = 3, 15
_RECIPE = Recipe(select="last")
_TELEA = "OpenCV Telea, radius 5"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Of one width: CPU seconds of a step on the machine where the runs began, and how many fit."""

    seconds_per_step: float
    steps: int


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all runs of a folder have in common, by the command's options.

    vals: hashes of names and sizes of the photographs to measure on, by their folder.
    """

    minutes: float
    size: int
    batch: int
    lr: float
    recipe: str
    bf16: bool
    data_sha256: str
    vals: dict[str, str]

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
            recipe=_RECIPE,
            permute_colours=True,
            bf16=self.bf16,
        )


def _preset(dim: int) -> str:
    return f"dim-{dim}"


def seconds_per_step(settings: Settings, dims: Sequence[int], folder: PhotoFolder, out: Path) -> dict[int, float]:
    """Median CPU seconds of a training step of each width, measured in turns on made pictures. out: a folder of runs;
    nothing is written there."""
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


def plan_of(
    out: Path, settings: Settings, dims: Sequence[int], folder: PhotoFolder, *, table_only: bool
) -> dict[int, Plan]:
    """The plan that the folder has, or a new one. Raises CheckpointError where it has one for other widths, and with
    `table_only` where it has none."""
    path = out / "plan.json"
    with FileLock(out / "plan.lock"):
        if not path.exists():
            if table_only:
                raise CheckpointError(f"{path}: no such file, so there are no runs to make a table of")
            measured = seconds_per_step(settings, dims, folder, out)
            plans = {dim: Plan(each, max(1, round(60.0 * settings.minutes / each))) for dim, each in measured.items()}
            write_json(path, {str(dim): dataclasses.asdict(plan) for dim, plan in plans.items()})
    values = read_json(path, str(path), CheckpointError)
    if set(values) != {str(dim) for dim in dims}:
        raise CheckpointError(f"{path}: is for dim {', '.join(values)}; choose these, or another --out")
    return {dim: convert(values[str(dim)], Plan, f"{path}: {dim}", CheckpointError) for dim in dims}


def measure(name: str, method: Method, vals: Iterable[str], size: int) -> dict[str, Figures]:
    """Means over the centre holes of each folder. size: of the pictures; the one trained with, as this compares widths,
    and not how well a network does at other sizes."""
    found = {}
    for val in vals:
        measured = evaluate(name, method, Path(val), hole_sets("centre", size)[0], Metrics())
        found[val] = Figures(measured.l1_percent, measured.psnr_db, measured.ssim)
    return found


def read_result(path: Path, vals: Iterable[str]) -> dict[str, Figures]:
    """The figures of a run for each folder. Raises CheckpointError for a damaged file."""
    values = read_json(path, str(path), CheckpointError)
    return {val: convert(values.get(val), Figures, f"{path}: {val}", CheckpointError) for val in vals}


def milliseconds(checkpoints: Mapping[int, Path], photograph: Path) -> dict[int, float]:
    """Median time of one picture of 256x256 in the float32 graph of each width, on all cores, measured in turns. The
    graphs are written beside the checkpoints. Raises what an export raises."""
    methods = {}
    for dim, path in checkpoints.items():
        graph = path.with_suffix(".onnx")
        if not graph.exists():
            export_graph(load_checkpoint(path), GraphOptions(size=(_SIDE, _SIDE), batch=1)).save(graph)
        methods[dim] = SinglePassInpainter(open_backend(graph, BackendOptions(device="cpu"))[0])
    picture, hole = read_square(photograph, _SIDE), centre_hole(_SIDE, _SIDE)
    calls = [functools.partial(method, picture, hole) for method in methods.values()]
    times = interleaved(calls, _LATENCY_ROUNDS, warm=True)
    return {dim: statistics.median(each) for dim, each in zip(methods, times, strict=True)}


def quality_tables(settings: Settings, finished: Mapping[int, Mapping[int, Path]]) -> list[str]:
    """A table for each folder. finished: the results, by width and seed."""
    vals = settings.vals
    found = {
        dim: {seed: read_result(path, vals) for seed, path in by_seed.items()} for dim, by_seed in finished.items()
    }
    telea = measure("telea", baseline_method("telea"), vals, settings.size)
    lines = []
    for val in vals:
        arms = {f"dim {dim}": {seed: each[val] for seed, each in by_seed.items()} for dim, by_seed in found.items()}
        lines += ["", val, "", *quality_table(arms, {_TELEA: telea[val]})]
    return lines


def cost_table(plans: Mapping[int, Plan], times: Mapping[int, float]) -> list[str]:
    """What the widths cost. times: of a picture in milliseconds."""
    lines = ["", "| | Parameters | Step | Steps | Latency of a picture |", "|---|---|---|---|---|"]
    for dim, plan in plans.items():
        parameters = sum(each.numel() for each in Generator(PRESETS[_preset(dim)]).parameters())
        latency = f"{times[dim]:.0f} ms" if dim in times else "not measured"
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
@click.option("--minutes", type=FiniteRange(0, min_open=True), default=120, show_default=True, help="Of each run.")
@click.option(
    "--size", type=click.IntRange(64), callback=check_size, default=128, show_default=True, help="Side of the crops."
)
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True)
@click.option("--lr", type=FiniteRange(0, min_open=True), default=1e-3, show_default=True)
@click.option("--bf16/--no-bf16", default=None, help="Default: bfloat16 where the CPU computes it.")
@click.option(
    "--table", "table_only", is_flag=True, help="Train nothing: the tables of what is finished, with latency."
)
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
    """Train every width for as long, and print how good each is.

    Start one process where nothing else runs: it measures the steps first. Once it says `dim`, start others, one for
    each core; each takes the next run that nobody works on. At the end --table measures the latency too, again where
    nothing else runs.
    """
    torch.set_num_threads(1)
    folder, opened = open_folder(data), [open_measured(val) for val in vals]
    hashes = {str(each.folder.resolve()): each.files_sha256 for each in opened}
    bf16 = computes_bf16("cpu") if bf16 is None else bf16
    settings = Settings(**values, recipe=str(_RECIPE), bf16=bf16, data_sha256=folder.files_sha256, vals=hashes)
    make_folder(out)
    check_budget(out / "budget.json", dataclasses.asdict(settings), table_only=table_only)
    with mock.patch.dict(PRESETS, {_preset(dim): dataclasses.replace(PRESETS["small"], dim=dim) for dim in dims}):
        plans = plan_of(out, settings, dims, folder, table_only=table_only)
        runs = {out / f"dim-{dim}-{seed}": (dim, seed) for seed in range(seeds) for dim in dims}
        for run in unfinished([] if table_only else runs):
            dim, seed = runs[run]
            click.echo(f"dim {dim}, seed {seed}: {plans[dim].steps:,} steps in {run}", err=True)
            if not settings.run(dim, plans[dim].steps, seed).train(folder, run):
                sys.exit(INTERRUPTED)
            found = measure(f"dim {dim}", checkpoint_method(run / "best.pt"), settings.vals, settings.size)
            write_json(run / RESULT, {val: dataclasses.asdict(figures) for val, figures in found.items()})
        finished: dict[int, dict[int, Path]] = {dim: {} for dim in dims}
        for run, (dim, seed) in runs.items():
            if (run / RESULT).exists():
                finished[dim][seed] = run / RESULT
        click.echo("\n".join(quality_tables(settings, finished)))
        times = {}
        if table_only:
            checkpoints = {dim: min(paths.values()).with_name("best.pt") for dim, paths in finished.items() if paths}
            times = milliseconds(checkpoints, [*opened[0].training, *opened[0].held_out][0])
        click.echo("\n".join(cost_table(plans, times)))


def main() -> None:
    """Entry point of `python -m benchmarks.capacity`."""
    run_command(compare, "python -m benchmarks.capacity")


if __name__ == "__main__":
    main()
