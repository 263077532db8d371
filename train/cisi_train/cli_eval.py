"""`cisi-eval`: quality of checkpoints, graphs and baselines side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cisi_runtime.architecture import SIZE_MULTIPLE
from cisi_runtime.command import option, run_command
from cisi_runtime.files import check_writable
from cisi_runtime.pictures import Picture
from cisi_runtime.sheet import picture_sheet
from cisi_runtime.writing import check_output_format, write_picture

if TYPE_CHECKING:
    from cisi_train import evaluate as evaluation

_BASELINES = ("mean", "telea", "ns")
_SHEET_ROWS = 6
# Added to the name of a graph that holds float16.
_EMULATED = " (emulated)"
# Added to the name of what is evaluated as cisi-run uses it.
_AS_RUN = " (joined)"


@click.command()
@click.option("--data", type=click.Path(path_type=Path), multiple=True, required=True, help="Folder of photographs.")
@click.option("--ckpt", type=click.Path(path_type=Path), multiple=True, help="Checkpoint, run in PyTorch.")
@click.option(
    "--onnx", type=click.Path(path_type=Path), multiple=True, help="Graph in ONNX Runtime, engine on its GPU."
)
@click.option(
    "--run",
    "run",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Graph, engine or checkpoint as cisi-run does it.",
)
@click.option("--baseline", type=click.Choice(_BASELINES), multiple=True, help="Mean colour, or OpenCV's methods.")
@click.option(
    "--holes",
    type=click.Choice(["centre", "rectangles", "strokes"]),
    default="centre",
    show_default=True,
    help="Half the height and width in the centre; several rectangles; strokes, by brackets of area.",
)
@click.option("--size", type=click.IntRange(64), default=256, show_default=True, help="Side of the pictures.")
@click.option("--lpips", help="LPIPS too: a file of its weights, or `fetch` for the published ones.")
@click.option("--against", type=click.Path(path_type=Path), help="Also PSNR over the hole against this graph's result.")
@click.option("--style", is_flag=True, help="Instead: whether the checkpoints' style codes are alive.")
@click.option("--sheet", type=click.Path(path_type=Path), help="Picture of original, input and results side by side.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line for each method and folder instead of the table.")
def evaluate(
    data: tuple[Path, ...],
    ckpt: tuple[Path, ...],
    onnx: tuple[Path, ...],
    run: tuple[Path, ...],
    baseline: tuple[str, ...],
    holes: str,
    size: int,
    lpips: str | None,
    against: Path | None,
    style: bool,
    sheet: Path | None,
    as_json: bool,
) -> None:
    """Measure L1, PSNR and SSIM over the hole, LPIPS, and time.

    Pictures are resized to short side --size and cropped to a square at the centre. --data, --ckpt, --onnx,
    --run and --baseline can be given several times. --ckpt and --onnx measure the network alone; with --run the fill is
    also joined to what is around the hole.
    """
    if not (ckpt or onnx or run or baseline):
        raise click.UsageError("nothing to evaluate, expected --ckpt, --onnx, --run or --baseline")
    if style and (onnx or run or baseline or lpips or against or sheet or holes != "centre" or not ckpt):
        raise click.UsageError(
            "--style looks into checkpoints, expected --ckpt and beside it only --data, --size, --json"
        )
    if size % SIZE_MULTIPLE:
        raise click.UsageError(f"--size: {size} is not a multiple of {SIZE_MULTIPLE}")
    if sheet is not None:
        with option("--sheet"):
            check_output_format(sheet)
            check_writable(sheet)
    from cisi_train import evaluate as evaluation

    with option("--data"):
        for folder in data:
            evaluation.pictures_of(folder)
    if style:
        _report_style(data, ckpt, size, as_json)
        return
    metric = None
    if lpips is not None:
        from cisi_train.lpips import load_lpips

        with option("--lpips"):
            metric = load_lpips(None if lpips == "fetch" else Path(lpips))
    methods: list[tuple[str, evaluation.Method]] = []
    for name in baseline:
        methods.append((name, evaluation.mean_method if name == "mean" else evaluation.opencv_method(name)))
    for path in ckpt:
        with option("--ckpt"):
            methods.append((path.name, evaluation.checkpoint_method(path)))
    for path in onnx:
        with option("--onnx"):
            emulated = evaluation.is_emulated(path)
            methods.append((path.name + _EMULATED * emulated, evaluation.graph_method(path)))
    for path in run:
        with option("--run"):
            methods.append((path.name + _AS_RUN, evaluation.run_method(path)))
    reference = None
    if against is not None:
        with option("--against"):
            reference = evaluation.graph_method(against)
    results: list[evaluation.Evaluation] = []
    rows = []
    with option("--data"):
        for folder in data:
            for holes_name, hole_of in evaluation.hole_sets(holes, size).items():
                for name, method in methods:
                    result = evaluation.evaluate(name, method, folder, holes_name, hole_of, metric, reference)
                    if name.endswith(_EMULATED):
                        result = dataclasses.replace(result, milliseconds=None)
                    results.append(result)
                    if as_json:
                        click.echo(json.dumps(dataclasses.asdict(results[-1])))
                if sheet is not None:
                    rows += evaluation.sheet_rows(methods, folder, hole_of, _SHEET_ROWS)
    if not as_json:
        click.echo(_table(results))
    if sheet is not None:
        with option("--sheet"):
            write_picture(sheet, Picture(picture_sheet(rows)))
        click.echo(f"{sheet}: original, input, {', '.join(name for name, _ in methods)}", err=True)


def _table(results: list[evaluation.Evaluation]) -> str:
    width = max(len("method"), *(len(result.method) for result in results))
    shown = any(result.against_db is not None for result in results)
    first = max(len("data"), *(len(result.data) for result in results))
    lines = [
        f"{'data':<{first}}  {'holes':<15}  {'method':<{width}}  {'n':>4}  {'L1':>7}  {'PSNR':>8}  {'SSIM':>5}  "
        f"{'LPIPS':>5}  {'median':>8}{'  against' if shown else ''}"
    ]
    for result in results:
        lpips = "-" if result.lpips is None else f"{result.lpips:.3f}"
        lines.append(
            f"{result.data:<{first}}  {result.holes:<15}  {result.method:<{width}}  {result.pictures:>4}  "
            f"{result.l1_percent:>5.2f} %  {result.psnr_db:>5.2f} dB  {result.ssim:>5.3f}  {lpips:>5}  "
            + (f"{result.milliseconds:>5.0f} ms" if result.milliseconds is not None else f"{'-':>8}")
            + ("" if result.against_db is None else f"  {result.against_db:>4.1f} dB")
        )
    return "\n".join(lines)


def _report_style(data: tuple[Path, ...], ckpt: tuple[Path, ...], size: int, as_json: bool) -> None:
    from cisi_train.checkpoint import load_checkpoint
    from cisi_train.evaluate import pictures_of
    from cisi_train.style import style_report

    for path in ckpt:
        with option("--ckpt"):
            generator = load_checkpoint(path).generator()
        for folder in data:
            with option("--data"):
                report = style_report(generator, pictures_of(folder), size)
            if as_json:
                click.echo(json.dumps({"data": str(folder), "ckpt": str(path), **dataclasses.asdict(report)}))
                continue
            click.echo(
                f"{path.name} on {folder.name} ({report.pictures}): spread of codes {report.spread:.3f}, between "
                f"pictures {report.between:.3f}, within a picture {report.within:.3f}; the next picture's style moves "
                f"the hole by {report.swap_levels:.1f} of 255 levels"
            )


def main() -> None:
    """Entry point of `cisi-eval`."""
    run_command(evaluate, "cisi-eval")
