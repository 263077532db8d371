"""`cisi-calibrate`: a float32 graph and photographs in, an INT8 graph that keeps its budget out."""

from __future__ import annotations

import dataclasses
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_calibration.budget import check_budget
from cisi_calibration.defaults import BUDGET_DB, IMAGES, METHOD, METHODS
from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import LOUDNESS, say, say_json, tell, warn
from cisi_runtime.errors import GraphError, ParityError, WeightsError, error_prefix

if TYPE_CHECKING:
    from onnx import ModelProto

    from cisi_calibration.photographs import Photographs
    from cisi_calibration.quality import Metric
    from cisi_calibration.quantisation import Calibration
    from cisi_calibration.table import RangeTable
    from cisi_runtime.export_record import ExportRecord
    from cisi_runtime.parity.golden import Golden
    from cisi_runtime.parity.verdict import ParityReport

# Engines are compared for this one. Kernels are the same for the others that TensorRT-RTX knows.
_CAPABILITY = "8.9"


@dataclasses.dataclass(frozen=True)
class CalibrateOptions:
    """What `cisi-calibrate` was asked to do; each field is the option of its name.

    out, table, fp16_graph: with their defaults filled in; fp16_graph None for --target cpu.
    is_table_named: --table was given.
    """

    graph: Path
    data: Path
    images: int
    method: str
    target: str
    budget_db: float
    reduce_range: bool
    fp16_graph: Path | None
    table: Path
    is_table_named: bool
    lpips: str | None
    seed: int
    out: Path


@dataclasses.dataclass(frozen=True)
class _Inputs:
    """What the options name, read and checked.

    model: the float32 graph.
    golden: its golden file.
    record: how it was exported.
    fp16_graph: for TensorRT; None for CPUs.
    metric: LPIPS, None when it was not asked for.
    photographs: the three sets.
    """

    model: ModelProto
    golden: Golden
    record: ExportRecord
    fp16_graph: ModelProto | None
    metric: Metric | None
    photographs: Photographs


@command(
    summary="Quantise a graph to INT8 within a quality budget.",
    verbose="Also what each convolution costs in INT8, and every comparison.",
)
@click.argument("graph", type=PATH)
@click.option("--data", type=PATH, required=True, help="Folder of photographs, like your own.")
@click.option(
    "--images", type=click.IntRange(1), default=IMAGES, show_default=True, help="How many to take ranges from."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=METHOD,
    show_default=True,
    help="How to read ranges off histograms.",
)
@click.option(
    "--target",
    type=click.Choice(["cpu", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="Whose kernels will run it.",
)
@click.option(
    "--budget-db",
    type=float,
    default=BUDGET_DB,
    show_default=True,
    callback=check_budget,
    help="Hole PSNR against float32 that must be kept.",
)
@click.option("--reduce-range", is_flag=True, help="7-bit weights, for CPUs without VNNI; with --target cpu.")
@click.option("--fp16-graph", type=PATH, help="Float16 graph for --target tensorrt; default: beside GRAPH.")
@click.option(
    "--table",
    type=PATH,
    help="Ranges: taken from this file if it exists, else written to it. Default: BEST.ranges.json beside the graph, "
    "used again while graph, photographs and options are the same.",
)
@click.option("--lpips", help="LPIPS in the report: a file of its weights, or `fetch`; needs PyTorch.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the photographs.")
@click.option("--out", type=PATH, help="INT8 graph; default: BEST.int8.TARGET.onnx beside GRAPH.")
def calibrate(**values: Any) -> None:
    """Quantise GRAPH, a float32 graph, to INT8 wherever the quality budget allows it.

    Ranges are taken from photographs with holes as in training. Each convolution is measured in INT8 alone, and the
    fewest stay in float with which the whole graph keeps the budget. The result is checked on photographs that neither
    saw, and by the golden file beside GRAPH; for TensorRT also by building both engines, where TensorRT-RTX is
    installed. When a check fails, no graph is written and the exit status is 1.
    """
    options = _resolve(**values)
    inputs = _read_inputs(options)
    result = _calibrate(options, inputs)
    parity = _verified(options, inputs, result)
    _write(options, inputs, result)
    say_json({**result.as_json(), "parity": parity.as_json(), "out": str(options.out)})


def _resolve(
    graph: Path, out: Path | None, table: Path | None, fp16_graph: Path | None, **values: Any
) -> CalibrateOptions:
    """The options with their defaults. Raises UsageError for those that exclude each other, OutputError for files that
    cannot be written."""
    target = values["target"]
    if values["reduce_range"] and target != "cpu":
        raise click.UsageError("--reduce-range is for CPUs without VNNI; expected --target cpu")
    if fp16_graph is not None and target != "tensorrt":
        raise click.UsageError("--fp16-graph is for --target tensorrt")
    stem = re.sub(r"\.onnx$", "", graph.name)
    if target == "tensorrt":
        fp16_graph = fp16_graph or graph.with_name(f"{stem}.fp16.onnx")
    options = CalibrateOptions(
        graph=graph,
        out=out or graph.with_name(f"{stem}.int8.{target}.onnx"),
        table=table or graph.with_name(f"{stem}.ranges.json"),
        is_table_named=table is not None,
        fp16_graph=fp16_graph,
        **values,
    )
    _check_outputs(options)
    return options


def _check_outputs(options: CalibrateOptions) -> None:
    from cisi_runtime.files import check_writable
    from cisi_runtime.parity.golden import golden_path

    out, table = options.out, options.table
    if out.suffix != ".onnx":
        raise click.UsageError(f"--out {out}: expected a name that ends in .onnx")
    for name, path in (("GRAPH", options.graph), ("--fp16-graph", options.fp16_graph)):
        if path is not None and out.resolve() == path.resolve():
            raise click.UsageError(f"--out {out}: is {name} itself")
    with error_prefix("--out"):
        check_writable(out)
        check_writable(golden_path(out))
    if not table.exists() or not options.is_table_named:
        with error_prefix("--table"):
            check_writable(table)


def _read_inputs(options: CalibrateOptions) -> _Inputs:
    from cisi_calibration.model_file import read_model
    from cisi_calibration.photographs import choose_photographs
    from cisi_calibration.quantisation import check_float_graph, check_fp16_graph
    from cisi_runtime.backends.graph import read_graph
    from cisi_runtime.parity.golden import golden_in_place, golden_path, load_golden
    from cisi_runtime.parity.structure import require_as_exported

    graph = options.graph
    with error_prefix("GRAPH"), error_prefix(str(graph)):
        model = read_model(graph)
        check_float_graph(model)
        golden = load_golden(golden_path(graph))
    with error_prefix("GRAPH"):
        record = require_as_exported(read_graph(graph), golden)
    with error_prefix("--out"):
        golden_in_place(golden_path(options.out), golden)
    fp16_graph = None
    if options.fp16_graph is not None:
        with error_prefix("--fp16-graph"), error_prefix(str(options.fp16_graph)):
            fp16_graph = read_model(options.fp16_graph)
            check_fp16_graph(fp16_graph, model)
        with error_prefix("--fp16-graph"):
            require_as_exported(read_graph(options.fp16_graph), None)
    metric = _load_metric(options.lpips)
    with error_prefix("--data"):
        photographs = choose_photographs(options.data, options.images, options.seed)
    for warning in photographs.warnings:
        warn(f"{options.data}: {warning}")
    return _Inputs(model, golden, record, fp16_graph, metric, photographs)


def _load_metric(lpips: str | None) -> Metric | None:
    """LPIPS, from the training package."""
    if lpips is None:
        return None
    from importlib.metadata import entry_points

    (point,) = entry_points(group="cisi.metrics", name="lpips")
    with error_prefix("--lpips"):
        try:
            load = point.load()
        except ModuleNotFoundError as error:
            raise WeightsError(f"needs {error.name}: pip install 'cisi-net[train]', or no --lpips") from error
        metric: Metric = load(None if lpips == "fetch" else Path(lpips))
    return metric


def _calibrate(options: CalibrateOptions, inputs: _Inputs) -> Calibration:
    from cisi_calibration.quantisation import CalibrationOptions
    from cisi_calibration.quantisation import calibrate as run_calibration

    table = _ranges(options, inputs)
    calibration_options = CalibrationOptions(
        inputs.photographs, options.method, options.budget_db, options.reduce_range, table, inputs.metric
    )
    result = run_calibration(inputs.model, calibration_options, inputs.fp16_graph)
    if LOUDNESS.verbose:
        say(result.per_layer())
    say(result.summary())
    return result


def _ranges(options: CalibrateOptions, inputs: _Inputs) -> RangeTable:
    """The ranges in the table's file, else of the photographs. New ranges are saved at once, so that they survive a
    failed search. A table given by --table must fit; the default one is replaced when anything has changed."""
    from cisi_calibration.table import observe

    table = _ranges_from_file(options, inputs) if options.table.exists() else None
    if table is not None:
        return table
    with error_prefix("--data"):
        table = observe(inputs.model, inputs.photographs, options.method)
    with error_prefix("--table"):
        table.save(options.table)
    tell(f"{options.table}: ranges of {table.images} photographs")
    return table


def _ranges_from_file(options: CalibrateOptions, inputs: _Inputs) -> RangeTable | None:
    """The ranges of a file, None when they are to be observed again."""
    from cisi_calibration.table import check_table, load_table

    path = options.table
    try:
        with error_prefix("--table"):
            table = load_table(path)
            check_table(path, table, inputs.model, options.method)
    except GraphError as error:
        if options.is_table_named:
            raise
        tell(f"{error}: observing again")
        return None
    is_same = table.pictures_sha256 == inputs.photographs.sha256
    if not is_same and not options.is_table_named:
        tell(f"{path}: is of other photographs: observing again")
        return None
    if not is_same:
        warn(f"{path}: is of other photographs; search and verdict may use some")
    tell(f"ranges: from {path}")
    return table


def _verified(options: CalibrateOptions, inputs: _Inputs, result: Calibration) -> ParityReport:
    """The INT8 graph's bytes and the comparisons, after parity and, for TensorRT, the comparison of the engines."""
    from cisi_calibration.model_file import check_valid
    from cisi_runtime.backends.graph import read_graph
    from cisi_runtime.parity.checks import check_graph_parity
    from cisi_runtime.parity.structure import check_plan
    from cisi_runtime.parity.verdict import ParityReport
    from cisi_runtime.progress_on_stderr import phases_on_stderr

    check_valid(result.model)
    serialised = result.sealed_bytes(inputs.record)
    with phases_on_stderr() as progress:
        comparisons = check_graph_parity(serialised, inputs.golden, progress)
    report = ParityReport(comparisons, structure=check_plan(read_graph(serialised)))
    if LOUDNESS.verbose or report.failures:
        say(report.table())
    say(report.summary())
    if report.failures:
        say_json({**result.as_json(), "parity": report.as_json(), "out": None})
        raise ParityError(
            f"{report.failures} of {report.checks} comparisons failed: {options.out} was not written; {result.advice()}"
        )
    if options.fp16_graph is not None:
        _check_engines(options.fp16_graph, serialised)
    return report


def _check_engines(fp16_graph: Path, int8_graph: bytes) -> None:
    """Build both engines where TensorRT-RTX is installed, and say so where it is not."""
    if find_spec("tensorrt_rtx") is None:
        tell("engines: not compared, that takes pip install 'cisi-net[rtx]'")
        return
    from cisi_runtime.building.compare_engines import compare_engines

    comparison = compare_engines(fp16_graph.read_bytes(), int8_graph, capability=_CAPABILITY)
    comparison.check()
    tell(str(comparison))


def _write(options: CalibrateOptions, inputs: _Inputs, result: Calibration) -> None:
    from cisi_runtime.parity.golden import golden_path, save_golden

    out = options.out

    def graph(golden: Golden) -> dict[Path, bytes]:
        return {out: result.sealed_bytes(dataclasses.replace(inputs.record, golden_sha256=golden.sha256))}

    with error_prefix("--out"):
        save_golden(golden_path(out), inputs.golden, graph)
    say(f"{out}: int8, {options.target}, {out.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    """Entry point of `cisi-calibrate`."""
    run_command(calibrate, "cisi-calibrate")
