"""`cisi-train`: photographs in, checkpoint out."""

from __future__ import annotations

from pathlib import Path

import click

from cisi_runtime.architecture import PRESETS, SIZE_MULTIPLE
from cisi_runtime.command import option, run_command
from cisi_runtime.files import make_folder


def _check_size(_context: click.Context, _parameter: click.Parameter, value: int) -> int:
    if value % SIZE_MULTIPLE:
        raise click.BadParameter(f"{value} is not a multiple of {SIZE_MULTIPLE}")
    return value


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Folder of photographs, searched below too."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for checkpoints and reports.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="small", show_default=True)
@click.option(
    "--steps", type=click.IntRange(1), required=True, help="Iterations in all; the last 30 % anneal the rate."
)
@click.option("--batch", type=click.IntRange(1), default=4, show_default=True, help="Images a step (paper: 4).")
@click.option(
    "--size", type=click.IntRange(64), default=256, show_default=True, callback=_check_size, help="Side of the crops."
)
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True, help="Adam's rate.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--save-every", type=click.IntRange(1), default=500, show_default=True, help="Steps between checkpoints.")
@click.option("--workers", type=click.IntRange(0), default=1, show_default=True, help="Processes that read pictures.")
@click.option("--data-name", help="Name of the data for the provenance; default: the folder's name.")
@click.option("--data-licence", help="Licence of the data, for the provenance; default: not stated.")
@click.option("--bf16", is_flag=True, help="Convolutions and linear layers in bfloat16.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--init", type=click.Path(path_type=Path), help="Start from the weights of this checkpoint.")
@click.option("--resume", is_flag=True, help="Go on from --out/last.pt.")
def train(**values: object) -> None:
    """Train CISI-net on a folder of photographs.

    Writes best.pt, last.pt, stats.jsonl, sheet.png and TensorBoard events into --out. Ctrl-C or SIGTERM ends the run
    with a checkpoint; --resume continues it, with the same other options, as if it had not been interrupted.
    """
    if values["resume"] and values["init"]:
        raise click.UsageError("--resume and --init exclude each other")
    import torch

    from cisi_train.data import open_folder
    from cisi_train.trainer import Trainer, TrainOptions

    if values["device"] == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("--device cuda: PyTorch finds no CUDA device here, expected one or --device cpu")
    options = TrainOptions(**values)  # type: ignore[arg-type]
    with option("--data"):
        folder = open_folder(options.data)
    for line in folder.report():
        click.echo(line, err=True)
    with option("--resume" if options.resume else "--init" if options.init else "--out"):
        trainer = Trainer(options, folder)
    for note in trainer.notes:
        click.echo(note, err=True)
    with option("--out"):
        make_folder(options.out)
    if not trainer.run():
        click.echo(f"stopped at step {trainer.step}; go on with --resume", err=True)
        raise click.Abort
    click.echo(f"{options.out / 'best.pt'}: {trainer.measured_on} PSNR {trainer.best_psnr_db:.2f} dB")


def main() -> None:
    """Entry point of `cisi-train`."""
    run_command(train, "cisi-train")
