"""`cisi-train`: photographs in, checkpoint out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, get_args

import click

from cisi_runtime.architecture import PRESETS, SIZE_MULTIPLE
from cisi_runtime.batch.only_run import only_run
from cisi_runtime.cli.command import INTERRUPTED, PATH, command, run_command
from cisi_runtime.cli.numbers import FiniteRange
from cisi_runtime.console import say, say_json, tell, tell_always, warn
from cisi_runtime.errors import CheckpointError, DataError, error_prefix
from cisi_runtime.files import make_folder
from cisi_runtime.pictures.masks import HOLES
from cisi_train.recipe import (
    RECIPE_OPTIONS,
    RECIPES,
    DiscriminatorInput,
    ImageLoss,
    Optimiser,
    RateSchedule,
    Selection,
    resolve_recipe,
)
from cisi_train.resuming import changed_options, is_named, read_saved_options, refuse_changes
from cisi_train.scene_categories import listed

if TYPE_CHECKING:
    from cisi_train.processes import Processes
    from cisi_train.train_options import TrainOptions
    from cisi_train.trainer import Trainer

# Paper, section "Implementation Details".
_PAPER_STEPS = 500_000


def check_size(_context: click.Context, _parameter: click.Parameter, value: int) -> int:
    """Callback of an option. Raises BadParameter for a side that the network does not take."""
    if value % SIZE_MULTIPLE:
        raise click.BadParameter(f"{value} is not a multiple of {SIZE_MULTIPLE}")
    return value


@command(summary="Train on a folder of photographs.", verbose="Also all losses at each checkpoint.")
@click.option("--data", type=PATH, help="Folder of photographs, searched below too; needed without --resume.")
@click.option(
    "--categories", callback=listed, help="Only these scene categories, by the names of folders: butte,canyon,field"
)
@click.option(
    "--out",
    type=PATH,
    required=True,
    is_eager=True,
    callback=read_saved_options,
    help="Folder for checkpoints and reports.",
)
@click.option("--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True, help="Network size.")
@click.option("--steps", type=click.IntRange(1), help="Iterations in all.  [default: 500000, as the paper]")
@click.option("--minutes", type=FiniteRange(0, min_open=True), help="Instead of --steps: minutes by the clock.")
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Images for each step and process.")
@click.option(
    "--size", type=click.IntRange(64), default=256, show_default=True, callback=check_size, help="Side of the crops."
)
@click.option("--lr", type=FiniteRange(0, min_open=True), default=1e-4, show_default=True, help="Adam's rate.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    default="ours",
    show_default=True,
    help="ours: for small budgets; paper: as published. It decides the options marked [recipe].",
)
@click.option("--holes", type=click.Choice(HOLES), help="What is cut out. [recipe]")
@click.option(
    "--optimiser",
    type=click.Choice(get_args(Optimiser)),
    help="Of the generator. muon: for hidden weights, at 20 times --lr; Adam for the others. [recipe]",
)
@click.option(
    "--rate-schedule",
    type=click.Choice(get_args(RateSchedule)),
    help="annealed: the rate falls to zero over the last 30 % of the run. [recipe]",
)
@click.option("--style-losses/--no-style-losses", default=None, help="Hold style codes apart, by colour. [recipe]")
@click.option(
    "--image-loss",
    type=click.Choice(get_args(ImageLoss)),
    help="Of images with a hole: psnr, of their square error, or l1. [recipe]",
)
@click.option(
    "--perceptual-weight", type=FiniteRange(0), help="Of the perceptual loss, beside 10 for the image. [recipe]"
)
@click.option(
    "--swapped-perceptual/--no-swapped-perceptual",
    default=None,
    help="Perceptual loss for swapped content codes too. [recipe]",
)
@click.option(
    "--discriminator-input",
    type=click.Choice(get_args(DiscriminatorInput)),
    help="What the discriminator and the re-encoding losses look at. [recipe]",
)
@click.option(
    "--select", type=click.Choice(get_args(Selection)), help="What makes best.pt, on held-out pictures. [recipe]"
)
@click.option("--average/--no-average", default=None, help="Export a moving average of the weights. [recipe]")
@click.option("--lpips", type=PATH, help="File of LPIPS weights for --select lpips; default: published ones, fetched.")
@click.option(
    "--zoom",
    type=FiniteRange(1.0, 4.0),
    default=1.0,
    show_default=True,
    help="Enlarge each photograph by a random factor from 1 to this before the crop.",
)
@click.option("--permute-colours", is_flag=True, help="Exchange red, green and blue of every other crop at random.")
@click.option(
    "--experiment",
    type=click.Choice(["full", "1", "2", "3"]),
    default="full",
    show_default=True,
    help="The paper's internal analysis: 1 plain network, 2 with style code, 3 with guidance too, full.",
)
@click.option(
    "--l1-first",
    type=FiniteRange(0, 1),
    default=0.0,
    show_default=True,
    help="First fraction of the run with image and code losses alone, 2.7 times as fast: 0.5 is half of it.",
)
@click.option("--vgg", type=PATH, help="File of VGG-16 weights; default: torchvision's, fetched.")
@click.option("--no-perceptual", is_flag=True, help="Train without VGG-16 and the perceptual loss.")
@click.option("--save-every", type=click.IntRange(1), default=500, show_default=True, help="Steps between checkpoints.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that read pictures.")
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    help="Threads on the CPU; on a busy machine 1 is quicker.  [default: all]",
)
@click.option("--data-name", help="Name of the data for the provenance; default: the folder's name.")
@click.option("--data-licence", help="Licence of the data, for the provenance; default: not stated.")
@click.option(
    "--bf16/--no-bf16",
    default=None,
    help="Convolutions and linear layers in bfloat16.  [default: with recipe ours, where CPU or GPU computes it]",
)
@click.option("--compile", is_flag=True, help="torch.compile: minutes at the start, quicker steps.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--init", type=PATH, help="Start from the weights of this checkpoint.")
@click.option(
    "--resume",
    is_flag=True,
    is_eager=True,
    callback=read_saved_options,
    help="Continue from --out/last.pt with the options of the run; only --out and what changes are named.",
)
@click.option("--dry-run", is_flag=True, help="One step, nothing written: options, sizes and losses as JSON.")
def train(dry_run: bool, **values: Any) -> None:
    """Train CISI-net on a folder of photographs.

    Writes best.pt, averaged.pt, last.pt, stats.jsonl, sheet.png and TensorBoard events into --out. Ctrl-C or SIGTERM
    ends the run with a checkpoint; --resume continues it, with the options that it had, as if it had not been
    interrupted. With torchrun, each process takes its own part of the batch.
    """
    options = _resolve(**values)
    if dry_run:
        report = _trainer(options)[0].dry_run()
        say(json.dumps(report, indent=2))
        say_json(report)
        return
    with contextlib.ExitStack() as stack:
        # Before anything in the folder is read. Under torchrun the first process writes.
        if os.environ.get("RANK", "0") == "0":
            with error_prefix("--out"):
                stack.enter_context(only_run(options.out))
        _run(options)


def _run(options: TrainOptions) -> None:
    trainer, processes = _trainer(options)
    with error_prefix("--out"):
        make_folder(options.out)
    if not trainer.run():
        if processes.is_first:
            tell_always(_what_there_is(options, trainer.state.step))
            say_json(_as_json(options, trainer, finished=False))
        processes.close()
        sys.exit(INTERRUPTED)
    if processes.is_first:
        best = trainer.state.best
        assert best is not None  # a run that was not interrupted has one
        say(f"{options.out / 'best.pt'}: step {best.step}, {trainer.held_out.measured_on} {best}")
        say_json(_as_json(options, trainer, finished=True))
    processes.close()


def _as_json(options: TrainOptions, trainer: Trainer, *, finished: bool) -> dict[str, Any]:
    """The end of a run. best: None when there is no such file yet."""
    best = options.out / "best.pt"
    return {
        "finished": finished,
        "step": trainer.state.step,
        "last": str(options.out / "last.pt"),
        "best": str(best) if best.is_file() else None,
        "averaged": str(options.out / "averaged.pt"),
        "measured_on": trainer.held_out.measured_on,
        "best_checkpoint": None if trainer.state.best is None else dataclasses.asdict(trainer.state.best),
    }


def _what_there_is(options: TrainOptions, step: int) -> str:
    """After an interruption: which checkpoints there are, and how to go on."""
    last, best = options.out / "last.pt", options.out / "best.pt"
    resume = f"to go on: cisi-train --out {shlex.quote(str(options.out))} --resume"
    if best.is_file():
        return f"stopped at step {step}: {last} is of this step, {best} holds the best weights so far; {resume}"
    next_save = (step // options.save_every + 1) * options.save_every
    return (
        f"stopped at step {step}: {last} is of this step; there is no {best.name} yet, it comes with the first regular "
        f"checkpoint, at step {next_save} (--save-every) or at the end; {resume}; to export what there is: "
        f"cisi-export --ckpt {shlex.quote(str(last.with_name('averaged.pt')))}"
    )


def _resolve(no_perceptual: bool, categories: str | None, **values: Any) -> TrainOptions:
    """The options with their defaults. Raises UsageError for those that exclude each other."""
    if values["resume"] and values["init"]:
        raise click.UsageError("--resume and --init exclude each other")
    context = click.get_current_context()
    refuse_changes(context)
    if values["data"] is None:
        if values["resume"]:
            last, saved = (values["out"] / name for name in ("last.pt", "options.json"))
            missing = f"no {saved.name} beside it: expected the options of the run, --data first"
            raise CheckpointError(f"--resume: {last}: {missing if last.is_file() else 'no such file'}")
        raise click.MissingParameter(ctx=context, param=context.command.params[0])
    if values["steps"] and values["minutes"]:
        named = [name for name in ("steps", "minutes") if is_named(context, name)]
        if len(named) != 1:
            raise click.UsageError("--steps and --minutes exclude each other")
        # The other one is of the run that is resumed.
        values["minutes" if named == ["steps"] else "steps"] = None
    if no_perceptual and values["vgg"]:
        raise click.UsageError("--vgg and --no-perceptual exclude each other")
    import torch

    from cisi_train.precision import computes_bf16
    from cisi_train.train_options import TrainOptions

    if values["device"] == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: PyTorch finds no CUDA device here, expected one or --device cpu")
    if not values["minutes"]:
        values["steps"] = values["steps"] or _PAPER_STEPS
    if values["bf16"] is None:
        values["bf16"] = values["recipe"] == "ours" and computes_bf16(values["device"])
    names = tuple(categories.split(",")) if categories else ()
    recipe_name = values.pop("recipe")
    recipe = resolve_recipe(recipe_name, {name: values.pop(name) for name in RECIPE_OPTIONS})
    if values["lpips"] is not None and recipe.select != "lpips":
        raise click.UsageError("--lpips is for --select lpips")
    if recipe.select == "lpips" and values["l1_first"] == 1.0:
        raise click.UsageError("--select lpips chooses among checkpoints with all losses, and --l1-first 1 has none")
    return TrainOptions(
        **values, recipe_name=recipe_name, recipe=recipe, perceptual=not no_perceptual, categories=names
    )


def _trainer(options: TrainOptions) -> tuple[Trainer, Processes]:
    import torch

    from cisi_train.data import open_folder
    from cisi_train.lpips import load_lpips
    from cisi_train.precision import computes_bf16
    from cisi_train.processes import Processes
    from cisi_train.trainer import Trainer
    from cisi_train.vgg import fetch_notice, load_vgg

    context = click.get_current_context()
    if options.resume and not options.data.is_dir() and not is_named(context, "data"):
        raise DataError(
            f"--data: {options.data}: no such folder, where the run had its photographs; expected --data with the "
            "folder that holds them now"
        )
    with error_prefix("--data"):
        folder = open_folder(options.data, options.categories)
    if options.threads:
        torch.set_num_threads(options.threads)
    processes = Processes(options.device)
    if processes.is_first:
        for line in folder.report():
            tell(line)
    vgg = None
    if options.perceptual:
        notice = fetch_notice() if options.vgg is None else None
        if notice is not None and processes.is_first:
            tell(notice)
        with error_prefix("--vgg"):
            vgg = load_vgg(options.vgg)
    lpips = None
    if options.recipe.select == "lpips":
        with error_prefix("--lpips"):
            lpips = load_lpips(options.lpips)
    with error_prefix("--resume" if options.resume else "--init" if options.init else "--out"):
        trainer = Trainer(options, folder, vgg, processes, lpips)
    if processes.is_first:
        unused = "" if options.perceptual else "; no perceptual loss (--no-perceptual)"
        tell(f"recipe {options.recipe_name}: {options.recipe}{unused}")
        if context.params["bf16"] is None:
            default, other = ("bfloat16", "--no-bf16") if options.bf16 else ("float32", "--bf16")
            reason = "by recipe paper" if options.recipe_name == "paper" else "by what the device computes"
            tell(f"precision {default}, {reason}; {other} for the other one")
        if options.bf16 and not computes_bf16(options.device):
            warn("precision bfloat16 is emulated here, and a step takes longer than in float32")
        for note in (*changed_options(context), *trainer.notes):
            tell(note)
    return trainer, processes


def main() -> None:
    """Entry point of `cisi-train`."""
    run_command(train, "cisi-train")


if __name__ == "__main__":  # for torchrun -m cisi_train.cli_train
    main()
