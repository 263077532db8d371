"""`python -m benchmarks.ablation`: the paper's internal analysis, and options of the recipes, on a small budget.

Every arm and seed is a run of its own, from fresh weights, resumable: see `resumable_runs`.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.ablation_arms import ANALYSIS, ARMS, BY_LPIPS, COMMON_RECIPE, COMPARED_ARMS, OPTIONS, Arm, norms_of
from benchmarks.ablation_table import MAX_SEEDS, Figures, comparison_table, quality_table
from benchmarks.resumable_runs import (
    RESULT,
    Run,
    check_budget,
    checkpoint_method,
    open_measured,
    unfinished,
    write_json,
)
from cisi_runtime.architecture import PRESETS
from cisi_runtime.cli.command import INTERRUPTED, PATH, run_command
from cisi_runtime.cli.numbers import FiniteRange
from cisi_runtime.errors import CheckpointError
from cisi_runtime.files import make_folder
from cisi_runtime.strict_json import convert, read_json
from cisi_train.checkpoint import weights_sha256
from cisi_train.cli_train import check_size
from cisi_train.data import PhotoFolder, open_folder
from cisi_train.evaluate import Method, Metrics, baseline_method, evaluate, hole_sets
from cisi_train.lpips import Lpips, load_lpips
from cisi_train.recipe import resolve_recipe
from cisi_train.vgg import VggFeatures, load_vgg

# What is measured: the paper's centre hole, and several rectangles, the same for every arm.
_HOLES = ("centre", "rectangles")
_BASELINES = {"mean": "mean colour of the known pixels", "telea": "OpenCV Telea, radius 5"}
# Checkpoints of a run: where the newest counts, and where one of them is selected.
_CHECKPOINTS, _CANDIDATES = 6, 20


@dataclasses.dataclass(frozen=True)
class Budget:
    """What all runs of a folder have in common, by the command's options.

    recipe: that arms change options of.
    lpips_sha256: of the weights of LPIPS; None where it is not measured.
    data_sha256, val_sha256: over names and sizes of the photographs to train on and to measure on.
    """

    preset: str
    steps: int
    size: int
    batch: int
    lr: float
    l1_first: float
    recipe: str
    lpips_sha256: str | None
    data_sha256: str
    val_sha256: str


@dataclasses.dataclass(frozen=True)
class Weights:
    """Published weights that some arms need: VGG-16 for the perceptual loss, LPIPS to measure and select by. None
    where the command did not name the file."""

    vgg: VggFeatures | None
    lpips: Lpips | None


def train_arm(arm: Arm, seed: int, budget: Budget, folder: PhotoFolder, weights: Weights, out: Path) -> bool:
    """Train one run, or go on with it: see `Run.train`. Train and evaluate within `norms_of`."""
    recipe = resolve_recipe("ours", {**COMMON_RECIPE, **arm.changes})
    run = Run(
        preset=budget.preset,
        steps=budget.steps,
        size=budget.size,
        batch=budget.batch,
        lr=budget.lr,
        seed=seed,
        l1_first=budget.l1_first,
        save_every=max(1, budget.steps // (_CHECKPOINTS if recipe.select == "last" else _CANDIDATES)),
        recipe=recipe,
        experiment=arm.experiment,
        vgg=weights.vgg if arm.perceptual else None,
        lpips=weights.lpips if recipe.select == "lpips" else None,
    )
    return run.train(folder, out)


def measure(name: str, method: Method, val: Path, size: int, lpips: Lpips | None) -> dict[str, Figures]:
    """Means over the pictures of a folder for each of `_HOLES`."""
    found = {}
    for holes in _HOLES:
        measured = evaluate(name, method, val, hole_sets(holes, size)[0], Metrics(lpips))
        found[holes] = Figures(measured.l1_percent, measured.psnr_db, measured.ssim, measured.lpips)
    return found


def read_result(path: Path) -> dict[str, Figures]:
    """The figures of a run for each kind of holes. Raises CheckpointError for a damaged file."""
    values = read_json(path, str(path), CheckpointError)
    return {holes: convert(values.get(holes), Figures, f"{path}: {holes}", CheckpointError) for holes in _HOLES}


def chosen_arms(named: Sequence[str], *, vgg: bool, lpips: bool) -> list[str]:
    """The arms that were named, or all that the weights allow. Raises UsageError for one without its weights.

    vgg, lpips: whether the command names the files.
    """
    missing = {name: _missing_weights(name, vgg=vgg, lpips=lpips) for name in named or ARMS}
    if named:
        for name, option in missing.items():
            if option is not None:
                raise click.UsageError(f"--arm {name} needs {option}")
    return [name for name, option in missing.items() if option is None]


def _missing_weights(name: str, *, vgg: bool, lpips: bool) -> str | None:
    if ARMS[name].perceptual and not vgg:
        return "--vgg"
    return "--lpips" if name in BY_LPIPS and not lpips else None


def runs_of(arms: Collection[str], seeds: int) -> list[tuple[str, int]]:
    """Arms and seeds: the paper's analysis first, seed after seed, so that early results compare arms."""
    groups = (ANALYSIS, OPTIONS, BY_LPIPS)
    return [(name, seed) for group in groups for seed in range(seeds) for name in group if name in arms]


def finished_results(out: Path, seeds: int) -> dict[str, dict[int, dict[str, Figures]]]:
    """By arm, seed and kind of holes."""
    paths = {name: {seed: out / f"{name}-{seed}" / RESULT for seed in range(seeds)} for name in ARMS}
    return {
        name: {seed: read_result(path) for seed, path in of_arm.items() if path.exists()}
        for name, of_arm in paths.items()
    }


def report(out: Path, val: Path, budget: Budget, seeds: int, chosen: Collection[str], lpips: Lpips | None) -> list[str]:
    """The tables, one for each kind of holes, of the arms that were chosen and of all that have a result."""
    baselines = {name: measure(name, baseline_method(name), val, budget.size, lpips) for name in _BASELINES}
    results = {name: found for name, found in finished_results(out, seeds).items() if found or name in chosen}
    values = dataclasses.asdict(budget).items()
    lines = [", ".join(f"{name} {value}" for name, value in values if not name.endswith("sha256"))]
    compared = [(ARMS[one].title, ARMS[other].title) for one, other in COMPARED_ARMS if {one, other} <= results.keys()]
    for holes in _HOLES:
        arms = {
            ARMS[name].title: {seed: found[holes] for seed, found in by_seed.items()}
            for name, by_seed in results.items()
        }
        scale = {_BASELINES[name]: found[holes] for name, found in baselines.items()}
        lines += ["", f"Holes: {holes}", "", *quality_table(arms, scale), "", *comparison_table(arms, compared)]
    return lines


@click.command()
@click.option("--data", type=PATH, required=True, help="Photographs to train on.")
@click.option("--val", type=PATH, required=True, help="Others to measure on. Nothing is selected by them.")
@click.option("--out", type=PATH, default="runs/ablation", show_default=True, help="Folder of the runs.")
@click.option("--seeds", type=click.IntRange(1, MAX_SEEDS), default=3, show_default=True)
@click.option("--preset", type=click.Choice(list(PRESETS)), default="tiny", show_default=True)
@click.option("--steps", type=click.IntRange(1), default=1000, show_default=True)
@click.option(
    "--size", type=click.IntRange(64), callback=check_size, default=96, show_default=True, help="Side of the crops."
)
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True)
@click.option("--lr", type=FiniteRange(0, min_open=True), default=1e-3, show_default=True)
@click.option("--l1-first", type=FiniteRange(0, 1), default=0.6, show_default=True)
@click.option("--arm", "arms", multiple=True, type=click.Choice(list(ARMS)), help="An arm to train; can be repeated.")
@click.option("--vgg", type=PATH, help="ImageNet VGG-16, for the arms with a perceptual loss.")
@click.option("--lpips", type=PATH, help="Weights of LPIPS: measures it, and adds the arms that differ in it.")
@click.option("--table", "table_only", is_flag=True, help="Train nothing: the table of what is finished.")
def ablate(
    data: Path,
    val: Path,
    out: Path,
    seeds: int,
    arms: tuple[str, ...],
    vgg: Path | None,
    lpips: Path | None,
    table_only: bool,
    **values: Any,
) -> None:
    """Train every arm with every seed that is not finished, and print the table.

    Without --arm these are all that the weights named allow. The tables have every arm with a result. Start it in as
    many processes as there are cores; each takes the next run that nobody works on.
    """
    torch.set_num_threads(1)
    chosen = chosen_arms(arms, vgg=vgg is not None, lpips=lpips is not None)
    weights = Weights(None if vgg is None else load_vgg(vgg), None if lpips is None else load_lpips(lpips))
    folder, val_sha256 = open_folder(data), open_measured(val).files_sha256
    lpips_sha256 = None if weights.lpips is None else weights_sha256(weights.lpips.state_dict())
    recipe = str(resolve_recipe("ours", COMMON_RECIPE))
    budget = Budget(
        **values, recipe=recipe, lpips_sha256=lpips_sha256, data_sha256=folder.files_sha256, val_sha256=val_sha256
    )
    make_folder(out)
    check_budget(out / "budget.json", dataclasses.asdict(budget), table_only=table_only)
    if weights.vgg is not None:
        vgg_sha256 = weights_sha256(weights.vgg.state_dict())
        check_budget(out / "vgg.json", {"vgg_sha256": vgg_sha256}, table_only=table_only)
    runs = {out / f"{name}-{seed}": (name, seed) for name, seed in runs_of(chosen, seeds)}
    for run in unfinished([] if table_only else runs):
        name, seed = runs[run]
        click.echo(f"arm {name}, seed {seed}: {run}", err=True)
        with norms_of(ARMS[name]):
            if not train_arm(ARMS[name], seed, budget, folder, weights, run):
                sys.exit(INTERRUPTED)
            found = measure(name, checkpoint_method(run / "best.pt"), val, budget.size, weights.lpips)
        write_json(run / RESULT, {holes: dataclasses.asdict(figures) for holes, figures in found.items()})
    click.echo("\n".join(report(out, val, budget, seeds, chosen, weights.lpips)))


def main() -> None:
    """Entry point of `python -m benchmarks.ablation`."""
    run_command(ablate, "python -m benchmarks.ablation")


if __name__ == "__main__":
    main()
