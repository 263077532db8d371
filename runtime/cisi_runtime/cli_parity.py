"""`cisi-parity`: is this graph still the trained network?"""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cisi_runtime.command import option, run_command
from cisi_runtime.errors import GraphError, ParityError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cisi_runtime.golden import Golden

# How many times a difference of one grey level is shown on the sheet.
_GAIN = 16


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path), required=False)
@click.option("--golden", type=click.Path(path_type=Path), help="Golden file; default: the one beside the graph.")
@click.option("--ckpt", type=click.Path(path_type=Path), help="Instead: the checkpoint itself; needs PyTorch.")
@click.option(
    "--sheet", type=click.Path(path_type=Path), help="Picture: input, reference, result, difference times 16."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
def parity(artifact: Path | None, golden: Path | None, ckpt: Path | None, sheet: Path | None, as_json: bool) -> None:
    """Compare the graph or engine ARTIFACT with the reference network, rung by rung, and exit with 1 when one fails.
    Without ARTIFACT the graph that ships with the package is checked.

    With its golden file alone this needs neither PyTorch nor the checkpoint. With --ckpt the golden cases are made
    afresh, every stored weight is compared too, and after a failure a walk through the layers names the first bad one.
    """
    if golden is not None and ckpt is not None:
        raise click.UsageError("--golden and --ckpt exclude each other")
    from cisi_runtime.backends.opening import is_engine
    from cisi_runtime.backends.ort import graph_contract
    from cisi_runtime.engines.sidecar import load_sidecar
    from cisi_runtime.files import check_writable
    from cisi_runtime.golden import golden_path, load_golden
    from cisi_runtime.inpainter import SHIPPED_GRAPH
    from cisi_runtime.parity import parity_table, weights_line
    from cisi_runtime.pictures import Picture
    from cisi_runtime.rungs import check_engine_file, check_graph_file
    from cisi_runtime.writing import check_output_format, write_picture

    artifact = artifact or SHIPPED_GRAPH
    if sheet is not None:
        with option("--sheet"):
            check_output_format(sheet)
            check_writable(sheet)
    with option("ARTIFACT"):
        if not artifact.is_file():
            raise GraphError(f"{artifact}: no such file")
    weights, found = [], None
    if is_engine(artifact):
        if ckpt is not None or sheet is not None:
            raise click.UsageError("--ckpt and --sheet are for graphs; an engine is compared with its golden file")
        with option("ARTIFACT"):
            sidecar = load_sidecar(artifact)
        with option("--golden"):
            cases = load_golden(golden or golden_path(artifact.with_name(sidecar.graph)))
        with option("ARTIFACT"):
            comparisons = check_engine_file(artifact, cases)
    elif ckpt is not None:
        with option("ARTIFACT"):
            graph_contract(artifact)
        (point,) = entry_points(group="cisi.parity", name="checkpoint")
        with option("--ckpt"):
            cases, comparisons, weights, found = point.load()(artifact, ckpt)
    else:
        with option("--golden"):
            cases = load_golden(golden or golden_path(artifact))
        with option("ARTIFACT"):
            comparisons = check_graph_file(artifact, cases)
    failures = sum(not item.passed for item in comparisons) + sum(not item.passed for item in weights)
    if as_json:
        report = {
            "artifact": str(artifact),
            "weights_sha256": cases.weights_sha256,
            "comparisons": [item.as_json() for item in comparisons],
            "weights": [item.as_json() for item in weights] if ckpt is not None else None,
            "walk": found,
            "passed": failures == 0,
        }
        click.echo(json.dumps(report))
    else:
        click.echo(parity_table(comparisons))
        click.echo(
            weights_line(weights) if ckpt is not None else "weights: not compared one by one (that takes --ckpt)"
        )
        if found is not None:
            click.echo(found)
    if sheet is not None:
        with option("--sheet"):
            write_picture(sheet, Picture(_sheet(artifact, cases)))
    if failures:
        hint = "" if ckpt is not None or is_engine(artifact) else "; --ckpt would name the layer"
        raise ParityError(f"{artifact}: {failures} of {len(comparisons) + len(weights)} comparisons failed{hint}")


def _sheet(artifact: Path, golden: Golden) -> npt.NDArray[np.uint8]:
    """A row for each picture of the golden cases: input, reference, result of the graph as written, difference."""
    import numpy as np

    from cisi_runtime.codec import encode_pixels
    from cisi_runtime.parity import run_case
    from cisi_runtime.rungs import graph_rungs
    from cisi_runtime.sheet import picture_sheet, show_hole

    _, backend = next(iter(graph_rungs(artifact)))
    rows = []
    for case in golden.cases:
        result = run_case(backend, case.image, case.hole_mask)
        pixels = result if result.dtype == np.uint8 else encode_pixels(result)
        for image, hole, reference, ours in zip(
            case.image, case.hole_mask, encode_pixels(case.completed), pixels, strict=True
        ):
            difference = np.abs(ours.astype(np.int64) - reference)
            shown = np.minimum(_GAIN * difference, 255).astype(np.uint8)
            rows.append([show_hole(image, hole), reference, ours, shown])
    return picture_sheet(rows)


def main() -> None:
    """Entry point of `cisi-parity`."""
    run_command(parity, "cisi-parity")
