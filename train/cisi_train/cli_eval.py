"""`cisi-eval`: quality of checkpoints, graphs and baselines side by side."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_runtime.architecture import SIZE_MULTIPLE
from cisi_runtime.backends.registry import DEVICES
from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import say, say_json, tell
from cisi_runtime.errors import WeightsError, error_prefix
from cisi_train.scene_categories import listed

if TYPE_CHECKING:
    from cisi_train.evaluate import Evaluation, Method, Metrics
    from cisi_train.lpips import Lpips

_BASELINES = ("mean", "telea", "ns")
_SHEET_ROWS = 6
# Added to the name of what is evaluated as cisi-run uses it, without detail and with it.
_AS_RUN = (" (blended)", " (detail)")


@dataclasses.dataclass(frozen=True)
class EvalOptions:
    """What `cisi-eval` was asked to do; each field is the option of its name."""

    data: tuple[Path, ...]
    ckpt: tuple[Path, ...]
    onnx: tuple[Path, ...]
    run: tuple[Path, ...]
    baseline: tuple[str, ...]
    holes: str
    size: int
    lpips: str | None
    against: Path | None
    device: str
    categories: tuple[str, ...]
    table1: bool
    style: bool
    sheet: Path | None


@command(
    summary="Measure the quality of fills on photographs.",
    verbose="Also L1, PSNR and SSIM of each picture.",
    as_json="A line of JSON for each method, folder and set of holes, or for each Table 1, instead of the table.",
)
@click.option("--data", type=PATH, multiple=True, required=True, help="Folder of photographs.")
@click.option("--ckpt", type=PATH, multiple=True, help="Checkpoint, run in PyTorch.")
@click.option("--onnx", type=PATH, multiple=True, help="Graph in ONNX Runtime, engine on its GPU.")
@click.option("--run", type=PATH, multiple=True, help="Graph, engine or checkpoint as cisi-run uses it.")
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
@click.option(
    "--device",
    type=click.Choice(DEVICES),
    default="auto",
    show_default=True,
    help="Of --ckpt, --onnx and --run. auto: cuda for an engine, else cpu.",
)
@click.option("--against", type=PATH, help="Also PSNR over the hole against this graph's result.")
@click.option(
    "--categories",
    callback=listed,
    help="Only these scene categories of Places365, by folders or by its lists: butte,canyon,field",
)
@click.option("--table1", is_flag=True, help="Instead: the paper's Table 1, with its published rows.")
@click.option("--style", is_flag=True, help="Instead: how much the checkpoints' style codes vary.")
@click.option("--sheet", type=PATH, help="Picture of original, input and results side by side.")
def evaluate(categories: str | None, **values: Any) -> None:
    """Measure L1, PSNR, SSIM and sharpness over the hole, LPIPS, and time.

    Pictures are resized to short side --size and cropped to a square at the centre. --data, --ckpt, --onnx, --run and
    --baseline can be given several times. --ckpt and --onnx measure the network alone. --run measures what cisi-run
    makes of it, without detail and with it. Sharpness is the mean gradient in the hole over that around it.
    """
    options = EvalOptions(categories=tuple(categories.split(",")) if categories else (), **values)
    _check_usage(options)
    if options.style:
        _report_style(options)
        return
    metrics = _metrics(options)
    methods = _methods(options)
    if options.table1:
        from cisi_train.table1 import table1

        with error_prefix("--data"):
            for number, folder in enumerate(options.data):
                if number:
                    say("")
                table1(methods, folder, options.categories)
        return
    results = _evaluate_all(options, methods, metrics)
    say(_table(results))
    if options.sheet is not None:
        _write_sheet(options, methods)


def _check_usage(options: EvalOptions) -> None:
    """Raise UsageError for options that exclude each other, and our own errors for files that cannot be used."""
    from cisi_runtime.backends.registry import is_engine
    from cisi_runtime.files import check_writable
    from cisi_runtime.pictures.reading import left_out_masks
    from cisi_runtime.pictures.writing import format_of

    methods = options.ckpt or options.onnx or options.run or options.baseline
    if not methods:
        raise click.UsageError("nothing to evaluate, expected --ckpt, --onnx, --run or --baseline")
    fixed = options.holes != "centre" or options.size != 256
    if options.table1 and (fixed or options.lpips or options.against or options.sheet):
        raise click.UsageError("--table1 has holes, size and measures of its own, expected none of those options")
    if options.table1 and (options.device == "cuda" or any(map(is_engine, (*options.onnx, *options.run)))):
        raise click.UsageError("--table1 takes times on the CPU, expected neither --device cuda nor an engine")
    others = options.onnx or options.run or options.baseline or options.lpips or options.against or options.sheet
    if options.style and (
        others or options.table1 or options.device == "cuda" or options.holes != "centre" or not options.ckpt
    ):
        raise click.UsageError(
            "--style looks into checkpoints, expected --ckpt and beside it only --data, --categories, --size, --json"
        )
    if options.size % SIZE_MULTIPLE:
        raise click.UsageError(f"--size: {options.size} is not a multiple of {SIZE_MULTIPLE}")
    if options.sheet is not None:
        with error_prefix("--sheet"):
            format_of(options.sheet)
            check_writable(options.sheet)
    from cisi_train.evaluate import pictures_of

    with error_prefix("--data"):
        for folder in options.data:
            pictures_of(folder, options.categories)
            if (masks := left_out_masks(folder)) is not None:
                tell(masks)


def _metrics(options: EvalOptions) -> Metrics:
    """What is measured beside L1, PSNR and SSIM."""
    from cisi_train.evaluate import Metrics, graph_method

    lpips = against = None
    if options.lpips is not None:
        with error_prefix("--lpips"):
            lpips = _load_lpips(None if options.lpips == "fetch" else Path(options.lpips))
    if options.against is not None:
        with error_prefix("--against"):
            against = graph_method(options.against)
    return Metrics(lpips, against)


def _load_lpips(path: Path | None) -> Lpips:
    try:
        from cisi_train.lpips import load_lpips
    except ModuleNotFoundError as error:
        raise WeightsError(f"needs {error.name}: pip install 'cisi-net[train]', or no --lpips") from error
    return load_lpips(path)


def _methods(options: EvalOptions) -> list[tuple[str, Method]]:
    """What is evaluated, by name."""
    from cisi_train import evaluate as evaluation

    methods: list[tuple[str, Method]] = [(name, evaluation.baseline_method(name)) for name in options.baseline]
    label = _labels([*options.ckpt, *options.onnx, *options.run])
    for path in options.ckpt:
        with error_prefix("--ckpt"):
            methods.append((label[path], evaluation.checkpoint_method(path, options.device)))
    for path in options.onnx:
        with error_prefix("--onnx"):
            emulated = options.device != "cuda" and evaluation.is_emulated(path)
            name = label[path] + evaluation.EMULATED * emulated
            methods.append((name, evaluation.graph_method(path, options.device)))
    for path in options.run:
        with error_prefix("--run"):
            names = (label[path] + suffix for suffix in _AS_RUN)
            methods += zip(names, evaluation.run_methods(path, options.device), strict=True)
    return methods


def _labels(paths: list[Path]) -> dict[Path, str]:
    """The names of files, with as much of their folders as tells them apart."""
    absolute = {path: path.absolute() for path in paths}
    depth, labels = 1, {path: path.name for path in paths}
    while len(set(labels.values())) < len(set(absolute.values())):
        depth += 1
        labels = {path: "/".join(whole.parts[-depth:]) for path, whole in absolute.items()}
    return labels


def _evaluate_all(options: EvalOptions, methods: list[tuple[str, Method]], metrics: Metrics) -> list[Evaluation]:
    from cisi_train import evaluate as evaluation

    results: list[Evaluation] = []
    with error_prefix("--data"):
        for folder in options.data:
            for holes in evaluation.hole_sets(options.holes, options.size):
                for name, method in methods:
                    result = evaluation.evaluate(name, method, folder, holes, metrics, options.categories)
                    results.append(result)
                    say_json(dataclasses.asdict(result))
    return results


def _write_sheet(options: EvalOptions, methods: list[tuple[str, Method]]) -> None:
    from cisi_runtime.pictures.picture import Picture
    from cisi_runtime.pictures.sheet import picture_sheet
    from cisi_runtime.pictures.writing import write_picture
    from cisi_train import evaluate as evaluation

    assert options.sheet is not None
    rows = [
        row
        for folder in options.data
        for holes in evaluation.hole_sets(options.holes, options.size)
        for row in evaluation.sheet_rows(methods, folder, holes, _SHEET_ROWS, options.categories)
    ]
    captions = ["original", "hole", *(name for name, _ in methods)]
    with error_prefix("--sheet"):
        write_picture(options.sheet, Picture(picture_sheet(rows, [captions] * len(rows))))


def _table(results: list[Evaluation]) -> str:
    """Within 100 columns: a block for each folder and set of holes, a line for each method."""
    width = max(len("method"), *(len(result.method) for result in results))
    has_against = any(result.against_db is not None for result in results)
    head = f"{'method':<{width}}  {'L1':>7}  {'PSNR':>8}  {'SSIM':>5}  {'sharp':>5}  {'LPIPS':>5}  {'median':>8}"
    head += "  against" if has_against else ""
    lines: list[str] = []
    for (data, holes, pictures), members in itertools.groupby(results, lambda r: (r.data, r.holes, r.pictures)):
        lines += ["", f"{data}, {pictures} pictures, {holes}", head]
        lines += [_row(result, width) for result in members]
    return "\n".join(lines[1:])


def _row(result: Evaluation, width: int) -> str:
    lpips = "-" if result.lpips is None else f"{result.lpips:.3f}"
    sharp = "-" if result.sharpness is None else f"{result.sharpness:.2f}"
    median = "-" if result.milliseconds is None else f"{result.milliseconds:.0f} ms"
    against = "" if result.against_db is None else f"  {result.against_db:>4.1f} dB"
    return (
        f"{result.method:<{width}}  {result.l1_percent:>5.2f} %  {result.psnr_db:>5.2f} dB  {result.ssim:>5.3f}  "
        f"{sharp:>5}  {lpips:>5}  {median:>8}{against}"
    )


def _report_style(options: EvalOptions) -> None:
    from cisi_train.checkpoint import load_checkpoint
    from cisi_train.evaluate import pictures_of
    from cisi_train.style import style_report

    for path in options.ckpt:
        with error_prefix("--ckpt"):
            generator = load_checkpoint(path).generator()
        for folder in options.data:
            with error_prefix("--data"):
                report = style_report(generator, pictures_of(folder, options.categories), options.size)
            say_json({"data": str(folder), "ckpt": str(path), **dataclasses.asdict(report)})
            say(
                f"{path.name} on {folder.name} ({report.pictures}): spread of codes {report.spread:.3f}, between "
                f"pictures {report.between:.3f}, within a picture {report.within:.3f}; the next picture's style moves "
                f"the hole by {report.swap_levels:.1f} of 255 levels"
            )


def main() -> None:
    """Entry point of `cisi-eval`."""
    run_command(evaluate, "cisi-eval")
