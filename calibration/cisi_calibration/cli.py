"""`cisi-calibrate`: a float32 graph and photographs in, an INT8 graph that keeps its budget out."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cisi_calibration.defaults import BUDGET_DB, IMAGES, METHOD, METHODS
from cisi_runtime.command import option, run_command
from cisi_runtime.errors import GraphError, ParityError

if TYPE_CHECKING:
    from onnx import ModelProto

    from cisi_calibration.calibrate import Calibration
    from cisi_calibration.pictures import Photographs
    from cisi_calibration.table import RangeTable

_TARGETS = ("cpu", "tensorrt")
# Engines are compared for this one; kernels are the same for the others that TensorRT-RTX knows.
_CAPABILITY = "8.9"


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of photographs, like your own.")
@click.option(
    "--images", type=click.IntRange(1), default=IMAGES, show_default=True, help="How many to take ranges from."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=METHOD,
    show_default=True,
    help="How to read ranges off what was seen.",
)
@click.option(
    "--target", type=click.Choice(_TARGETS), default="cpu", show_default=True, help="Whose kernels will run it."
)
@click.option(
    "--budget-db", type=float, default=BUDGET_DB, show_default=True, help="Hole PSNR against float32 that must be kept."
)
@click.option("--reduce-range", is_flag=True, help="7-bit weights, for CPUs without VNNI; with --target cpu.")
@click.option("--half", type=click.Path(path_type=Path), help="Float16 graph for --target tensorrt; default: beside.")
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="Ranges: taken from this file if it exists, else written to it. Default: BEST.ranges.json beside the graph, "
    "used again while graph, photographs and options are the same.",
)
@click.option("--lpips", help="LPIPS in the report: a file of its weights, or `fetch`; needs PyTorch.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the photographs.")
@click.option("--out", type=click.Path(path_type=Path), help="INT8 graph; default: BEST.int8.TARGET.onnx beside GRAPH.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
def calibrate(
    graph: Path,
    data: Path,
    images: int,
    method: str,
    target: str,
    budget_db: float,
    reduce_range: bool,
    half: Path | None,
    table: Path | None,
    lpips: str | None,
    seed: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Quantise GRAPH, the float32 graph of a network, and place INT8 where the picture survives it.

    Ranges are taken from photographs with holes as in training. Each convolution is measured in INT8 alone, and the
    fewest stay high for which the whole graph keeps the budget. The result is checked on photographs that neither saw,
    and by the golden file beside GRAPH; for TensorRT also by building both engines, where TensorRT-RTX is installed.
    When that fails, no graph is written and the exit status is 1.
    """
    if reduce_range and target != "cpu":
        raise click.UsageError("--reduce-range is for CPUs without VNNI; expected --target cpu")
    if half is not None and target != "tensorrt":
        raise click.UsageError("--half is for --target tensorrt")
    if not budget_db >= BUDGET_DB:
        raise click.UsageError(f"--budget-db {budget_db:g}: expected {BUDGET_DB:g} or more, as parity requires of INT8")
    stem = re.sub(r"\.onnx$", "", graph.name)
    out = out or graph.with_name(f"{stem}.int8.{target}.onnx")
    if out.suffix != ".onnx":
        raise click.UsageError(f"--out {out}: expected a name that ends in .onnx")
    if target == "tensorrt":
        half = half or graph.with_name(f"{stem}.fp16.onnx")
    for name, path in (("GRAPH", graph), ("--half", half)):
        if path is not None and out.resolve() == path.resolve():
            raise click.UsageError(f"--out {out}: is {name} itself")
    from cisi_runtime.files import check_writable, whole_file
    from cisi_runtime.golden import golden_path, load_golden, save_golden

    with option("--out"):
        check_writable(out)
    is_named = table is not None
    table = table or graph.with_name(f"{stem}.ranges.json")
    if not table.exists() or not is_named:
        with option("--table"):
            check_writable(table)
    from cisi_calibration.calibrate import Request, check_graph, check_half
    from cisi_calibration.calibrate import calibrate as run
    from cisi_calibration.metadata import contract_of
    from cisi_calibration.pictures import choose_photographs

    with option("GRAPH"), option(str(graph)):
        model = _read(graph)
        check_graph(model)
        golden = load_golden(golden_path(graph))
        if golden.weights_sha256 != contract_of(model).weights_sha256:
            raise GraphError(f"{golden_path(graph)} is of other weights, expected the golden file of this export")
    half_model = None
    if half is not None:
        with option("--half"), option(str(half)):
            half_model = _read(half)
            check_half(half_model, model)
    metric = None
    if lpips is not None:
        from importlib.metadata import entry_points

        (point,) = entry_points(group="cisi.metrics", name="lpips")
        with option("--lpips"):
            metric = point.load()(None if lpips == "fetch" else Path(lpips))
    with option("--data"):
        photographs = choose_photographs(data, images, seed)
    for warning in photographs.warnings:
        click.echo(f"warning: {data}: {warning}", err=True)
    ranges = _ranges(table, is_named, model, photographs, method)
    result = run(model, half_model, Request(photographs, method, budget_db, reduce_range, ranges, metric))
    click.echo(json.dumps(result.as_json()) if as_json else result.report())
    from cisi_runtime.parity import parity_table
    from cisi_runtime.rungs import check_graph_file

    serialised = _checked_bytes(result)
    comparisons = check_graph_file(serialised, golden)
    click.echo(parity_table(comparisons), err=as_json)
    failures = sum(not item.passed for item in comparisons)
    if failures:
        raise ParityError(f"{failures} of {len(comparisons)} comparisons failed: {out} was not written")
    if half is not None:
        _check_engines(half, serialised)
    with option("--out"):
        if not golden_path(out).exists():
            save_golden(golden_path(out), golden)
        with whole_file(out) as temporary:
            temporary.write_bytes(serialised)
    click.echo(f"{out}: int8, {target}, {out.stat().st_size / 1e6:.1f} MB", err=as_json)


def _read(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    from cisi_runtime.backends.ort import graph_contract

    try:
        serialised = path.read_bytes()
        graph_contract(serialised)
        return onnx.load_from_string(serialised)
    except FileNotFoundError as error:
        raise GraphError("no such file, expected a graph that cisi-export wrote") from error
    except (OSError, DecodeError) as error:
        raise GraphError("cannot be read, expected an ONNX graph") from error


def _ranges(path: Path, is_named: bool, model: ModelProto, photographs: Photographs, method: str) -> RangeTable:
    """The ranges of a file, or else of the photographs, and then written to it at once: they outlive a search that
    fails. A named file must fit; the one beside the graph is used while nothing has changed, and else replaced."""
    from cisi_calibration.table import check_table, load_table, observe

    if path.exists():
        try:
            with option("--table"):
                table = load_table(path)
                check_table(path, table, model)
                if table.method != method:
                    raise GraphError(f"{path}: is of method {table.method}, expected {method} as --method says")
            is_same = table.pictures_sha256 == photographs.sha256
            if is_named and not is_same:
                click.echo(f"warning: {path}: is of other photographs; some may be among those that judge", err=True)
            if is_named or is_same:
                click.echo(f"ranges: from {path}", err=True)
                return table
            click.echo(f"{path}: is of other photographs: observing again", err=True)
        except GraphError as error:
            if is_named:
                raise
            click.echo(f"{error}: observing again", err=True)
    with option("--data"):
        table = observe(model, photographs, method)
    with option("--table"):
        table.save(path)
    click.echo(f"{path}: ranges of {table.images} photographs", err=True)
    return table


def _check_engines(half: Path, int8: bytes) -> None:
    """Build both graphs where TensorRT-RTX is installed, and say so where it is not."""
    if find_spec("tensorrt_rtx") is None:
        click.echo("engines: not compared, that takes pip install 'cisi-net[rtx]'", err=True)
        return
    from cisi_runtime.engines.versus import build_both

    versus = build_both(half.read_bytes(), int8, capability=_CAPABILITY)
    versus.check()
    click.echo(str(versus), err=True)


def _checked_bytes(result: Calibration) -> bytes:
    import onnx

    onnx.checker.check_model(result.model, full_check=True)
    serialised: bytes = result.model.SerializeToString(deterministic=True)
    return serialised


def main() -> None:
    """Entry point of `cisi-calibrate`."""
    run_command(calibrate, "cisi-calibrate")
