"""`cisi-export`: a checkpoint in, one verified ONNX graph and its golden file out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_calibration.budget import check_budget
from cisi_calibration.defaults import BUDGET_DB
from cisi_runtime.architecture import MIN_SIZE, SIZE_MULTIPLE
from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import LOUDNESS, say, say_json, tell, warn
from cisi_runtime.errors import CisiError, ParityError, error_prefix

if TYPE_CHECKING:
    from cisi_calibration.quantisation import CalibrationOptions
    from cisi_export.exporting import Export

# Of a graph of one size and batch: the largest whose golden file, with one case, stays below 10 MB (9.8 MB measured).
_MAX_PIXELS = 1024 * 1024
# With a free size: golden cases have up to 256x256 pixels each.
_MAX_BATCH = 28


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What `cisi-export` was asked to do; each field is the option of its name, with defaults filled in.

    precision: from --fp16 and --int8.
    size: height and width, None for any. batch: None for any.
    flavour: the TensorRT that builds the engine, None without --engine.
    """

    ckpt: Path
    precision: str
    calib: Path | None
    budget_db: float | None
    target: str
    face: str
    size: tuple[int, int] | None
    batch: int | None
    flavour: str | None
    out: Path


@command(
    summary="Export a checkpoint to one verified ONNX graph.",
    verbose="Also every comparison, and with --int8 what each convolution costs.",
)
@click.option("--ckpt", type=PATH, required=True, help="Checkpoint that cisi-train wrote.")
@click.option("--fp16", is_flag=True, help="Float16 convolutions, for TensorRT.")
@click.option("--int8", is_flag=True, help="INT8 convolutions (Q/DQ), for --target cpu or tensorrt; needs --calib.")
@click.option("--calib", type=PATH, help="Folder of photographs to find INT8 ranges with.")
@click.option(
    "--budget-db",
    type=float,
    callback=check_budget,
    help=f"Hole PSNR against float32 that INT8 must keep; default: {BUDGET_DB:g}.",
)
@click.option(
    "--target", type=click.Choice(["cpu", "tensorrt"]), help="Default: tensorrt with --fp16 or --engine, else cpu."
)
@click.option(
    "--io",
    "face",
    type=click.Choice(["uint8", "tensor"]),
    default="uint8",
    show_default=True,
    help="uint8: pixels in and out; tensor: float32 in [-1, 1].",
)
@click.option("--size", default="dynamic", show_default=True, help="WIDTHxHEIGHT, or one side, or dynamic.")
@click.option("--batch", default="dynamic", show_default=True, help="Pictures at a time, or dynamic.")
@click.option("--engine", is_flag=True, help="Also build the TensorRT engine beside the graph, as cisi-build does.")
@click.option("--out", type=PATH, help="ONNX file; default: beside the checkpoint, by its name.")
def export(**values: Any) -> None:
    """Export a checkpoint to one ONNX graph, with a golden file beside it, and check that it is the same network.

    When a comparison fails, all of them are printed, nothing is written and the exit status is 1.
    """
    options = _resolve(**values)
    result = _export(options)
    _print_parity(options, result)
    _write(options, result)
    if options.flavour is not None:
        try:
            with error_prefix("--engine"):
                _build_engine(options.out, options.flavour)
        except CisiError:
            say_json(_as_json(options, result) | {"engine": None})
            raise
    say_json(_as_json(options, result))


def _resolve(
    ckpt: Path, fp16: bool, int8: bool, target: str | None, size: str, batch: str, engine: bool, **values: Any
) -> ExportOptions:
    """The options with their defaults. Raises UsageError for those that exclude each other, OutputError for a file that
    cannot be written."""
    precision = "float16" if fp16 else "int8" if int8 else "float32"
    target = target or ("tensorrt" if fp16 or engine else "cpu")
    _check_usage(fp16, int8, values["calib"], target, engine)
    if values["budget_db"] is not None and not int8:
        raise click.UsageError("--budget-db is for --int8")
    fixed_size, fixed_batch = _parse_size(size), _parse_batch(batch)
    _check_size(size, batch, fixed_size, fixed_batch)
    fixed = (f".{size}" if fixed_size else "") + (f".batch{batch}" if fixed_batch else "")
    out = values.pop("out") or ckpt.with_name(ckpt.stem + fixed + _suffix(precision, target, values["face"]))
    if out.suffix != ".onnx":
        raise click.UsageError(f"--out {out}: expected a name that ends in .onnx")
    _check_outputs(out, calibrates=int8)
    flavour = None
    if engine:
        from cisi_runtime.engines.options import choose_flavour

        with error_prefix("--engine"):
            flavour = choose_flavour()
    return ExportOptions(
        ckpt=ckpt,
        precision=precision,
        target=target,
        size=fixed_size,
        batch=fixed_batch,
        flavour=flavour,
        out=out,
        **values,
    )


def _check_outputs(out: Path, *, calibrates: bool) -> None:
    """Raise OutputError where a file cannot be written: now, and not after an hour of calibration."""
    from cisi_runtime.files import check_writable
    from cisi_runtime.parity.golden import golden_path, ranges_path

    with error_prefix("--out"):
        for path in (out, golden_path(out), *([ranges_path(out)] if calibrates else [])):
            check_writable(path)


def _check_usage(fp16: bool, int8: bool, calib: Path | None, target: str, engine: bool) -> None:
    if engine and target == "cpu":
        raise click.UsageError("--engine: engines are built from graphs for TensorRT, expected --target tensorrt")
    if fp16 and int8:
        raise click.UsageError("--fp16 and --int8 exclude each other")
    if fp16 and target == "cpu":
        raise click.UsageError(
            "--fp16 with --target cpu: CPUs run float16 graphs in float32, and slower; expected --target tensorrt"
        )
    if int8 and calib is None:
        raise click.UsageError("--int8 needs --calib, a folder of photographs to find the ranges with")
    if calib is not None and not int8:
        raise click.UsageError("--calib is for --int8")


def _check_size(size: str, batch: str, fixed_size: tuple[int, int] | None, fixed_batch: int | None) -> None:
    if fixed_size and fixed_size[0] * fixed_size[1] * (fixed_batch or 1) > _MAX_PIXELS:
        raise click.UsageError(
            f"--size {size} with --batch {batch}: expected at most {_MAX_PIXELS} pixels together (1024x1024), "
            "because the golden file of such a graph would exceed 10 MB; larger ones run through a dynamic graph"
        )
    if fixed_batch and not fixed_size and fixed_batch > _MAX_BATCH:
        raise click.UsageError(f"--batch {batch}: expected at most {_MAX_BATCH} with a free size")


def _parse_size(text: str) -> tuple[int, int] | None:
    """Height and width; None: any."""
    if text == "dynamic":
        return None
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if any(side % SIZE_MULTIPLE or side < MIN_SIZE for side in (width, height)):
        raise click.UsageError(
            f"--size {text}: expected WIDTHxHEIGHT, multiples of {SIZE_MULTIPLE} and {MIN_SIZE} or more, or dynamic"
        )
    return height, width


def _parse_batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.UsageError(f"--batch {text}: expected a number from 1, or dynamic")
    return int(text)


def _suffix(precision: str, target: str, face: str) -> str:
    start = ".tensor" if face == "tensor" else ""
    if precision == "float16":
        return f"{start}.fp16.onnx"
    if precision == "int8":
        return f"{start}.int8.{target}.onnx"
    return f"{start}.onnx" if target == "cpu" else f"{start}.{target}.onnx"


def _export(options: ExportOptions) -> Export:
    from cisi_train.checkpoint import load_checkpoint

    with error_prefix("--ckpt"):
        checkpoint = load_checkpoint(options.ckpt)
    # After PyTorch, so that an installation without both is told of the extra that brings both.
    from cisi_export.exporting import GraphOptions, export_graph
    from cisi_export.golden_cases import make_golden
    from cisi_runtime.parity.golden import golden_in_place, golden_path, within_size_limit
    from cisi_runtime.progress_on_stderr import phases_on_stderr

    graph_options = GraphOptions(options.precision, options.target, options.face, options.size, options.batch)
    calibration = _calibration_options(options.calib, options.budget_db or BUDGET_DB)
    with phases_on_stderr() as progress:
        golden = make_golden(checkpoint, options.size, options.batch, progress)
        with error_prefix("--out"):
            golden_in_place(golden_path(options.out), within_size_limit(golden))
        return export_graph(checkpoint, graph_options, calibration=calibration, golden=golden, progress=progress)


def _calibration_options(calib: Path | None, budget_db: float) -> CalibrationOptions | None:
    if calib is None:
        return None
    from cisi_calibration.defaults import IMAGES
    from cisi_calibration.photographs import choose_photographs
    from cisi_calibration.quantisation import CalibrationOptions

    with error_prefix("--calib"):
        photographs = choose_photographs(calib, IMAGES)
    for warning in photographs.warnings:
        warn(f"{calib}: {warning}")
    return CalibrationOptions(photographs, budget_db=budget_db)


def _print_parity(options: ExportOptions, result: Export) -> None:
    parity = result.parity
    if result.calibration is not None:
        if LOUDNESS.verbose:
            say(result.calibration.per_layer())
        say(result.calibration.summary())
    if LOUDNESS.verbose or parity.failures:
        say(parity.table())
    say(parity.summary())
    if parity.failures:
        say_json(_as_json(options, result))
        advice = "" if result.calibration is None else f"; {result.calibration.advice()}"
        raise ParityError(
            f"{parity.failures} of {parity.checks} comparisons failed: {options.out} was not written{advice}"
        )


def _write(options: ExportOptions, result: Export) -> None:
    from cisi_runtime.parity.golden import golden_path, within_size_limit

    out, golden = options.out, golden_path(options.out)
    dropped = len(result.golden.cases) - len(within_size_limit(result.golden).cases)
    if dropped:
        tell(f"{golden}: without {dropped} of the golden cases, to stay below 10 MB")
    with error_prefix("--out"):
        result.save(out)
    say(f"{out}: {options.precision}, {options.target} lowering, {out.stat().st_size / 1e6:.1f} MB")
    say(f"{golden}: {golden.stat().st_size / 1e6:.1f} MB")


def _as_json(options: ExportOptions, result: Export) -> dict[str, Any]:
    """What was made and compared. graph, golden, engine: None where no such file was written."""
    from cisi_runtime.parity.golden import golden_path

    is_written = result.parity.passed
    return {
        "graph": str(options.out) if is_written else None,
        "golden": str(golden_path(options.out)) if is_written else None,
        "engine": str(options.out.with_suffix(".engine")) if is_written and options.flavour is not None else None,
        "precision": options.precision,
        "target": options.target,
        "face": options.face,
        "parity": result.parity.as_json(),
        "calibration": None if result.calibration is None else result.calibration.as_json(),
    }


def _build_engine(graph: Path, flavour: str) -> None:
    from cisi_runtime.backends.graph import read_graph
    from cisi_runtime.building.make import default_options, make_engine
    from cisi_runtime.building.progress import progress_bar

    info = read_graph(graph)
    with progress_bar() as progress:
        engine = make_engine(info, graph.with_suffix(".engine"), default_options(info, flavour), progress=progress)
    for note in engine.notes:
        tell(note)
    say(engine.summary())


def main() -> None:
    """Entry point of `cisi-export`."""
    run_command(export, "cisi-export")
