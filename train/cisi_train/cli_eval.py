"""`cisi-eval`: quality over the centre hole, for checkpoints, graphs and baselines side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import click

from cisi_runtime.command import option, run_command

_BASELINES = ("mean", "telea", "ns")


@click.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of photographs.")
@click.option("--ckpt", type=click.Path(path_type=Path), multiple=True, help="Checkpoint, run in PyTorch.")
@click.option("--onnx", type=click.Path(path_type=Path), multiple=True, help="Graph, run in ONNX Runtime.")
@click.option("--baseline", type=click.Choice(_BASELINES), multiple=True, help="Mean colour, or OpenCV's methods.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each method instead of the table.")
def evaluate(
    data: Path, ckpt: tuple[Path, ...], onnx: tuple[Path, ...], baseline: tuple[str, ...], as_json: bool
) -> None:
    """Measure L1, PSNR and SSIM over a 128x128 centre hole in 256x256 pictures."""
    if not (ckpt or onnx or baseline):
        raise click.UsageError("nothing to evaluate, expected --ckpt, --onnx or --baseline")
    from cisi_train import evaluate as evaluation

    methods: list[tuple[str, evaluation.Method]] = []
    for name in baseline:
        methods.append((name, evaluation.mean_method if name == "mean" else evaluation.opencv_method(name)))
    for path in ckpt:
        with option("--ckpt"):
            methods.append((path.name, evaluation.checkpoint_method(path)))
    for path in onnx:
        with option("--onnx"):
            methods.append((path.name, evaluation.graph_method(path)))
    with option("--data"):
        results = [evaluation.evaluate(name, method, data) for name, method in methods]
    if as_json:
        for result in results:
            click.echo(json.dumps(dataclasses.asdict(result)))
        return
    click.echo(f"{'method':<24} {'pictures':>8} {'L1':>8} {'PSNR':>9} {'SSIM':>6}")
    for result in results:
        click.echo(
            f"{result.method:<24} {result.pictures:>8} {result.l1_percent:>6.2f} % {result.psnr_db:>6.2f} dB "
            f"{result.ssim:>6.3f}"
        )


def main() -> None:
    """Entry point of `cisi-eval`."""
    run_command(evaluate, "cisi-eval")
