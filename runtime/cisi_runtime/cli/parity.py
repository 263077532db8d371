"""`cisi-parity`: is this graph still the trained network?"""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_runtime.backends.registry import BACKENDS, DEVICES, PRECISIONS, BackendOptions
from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import LOUDNESS, say, say_json
from cisi_runtime.errors import GraphError, ParityError, error_prefix

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from cisi_runtime.parity.golden import Golden
    from cisi_runtime.parity.verdict import ParityReport

# How many times the difference of one grey level is shown on the sheet.
_GAIN = 16


@dataclasses.dataclass(frozen=True)
class ParityOptions:
    """What `cisi-parity` was asked to do; each field is the option of its name."""

    artifact: Path
    golden: Path | None
    ckpt: Path | None
    backend: str | None
    device: str
    precision: str
    structure: str
    sheet: Path | None
    url: str | None
    model_name: str | None
    token_file: Path | None


@dataclasses.dataclass(frozen=True)
class _Checked:
    """What was compared, with which cases; first_bad_layer: what a comparison of the layers found after a failure."""

    golden: Golden
    report: ParityReport
    first_bad_layer: str | None = None


@command(summary="Check that it is still the same network.", verbose="Every comparison on a line of its own.")
@click.argument("artifact", type=PATH, required=False)
@click.option("--golden", type=PATH, help="Golden file; default: the one beside the graph.")
@click.option("--ckpt", type=PATH, help="Instead: the checkpoint itself; needs PyTorch.")
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    help="Instead: in the backend that will run it.  [default: ONNX Runtime, as written and optimised]",
)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="With --backend.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="stored",
    show_default=True,
    help="bf16: bfloat16, with --backend openvino or torch.",
)
@click.option(
    "--structure",
    type=click.Choice(["auto", "require", "report"]),
    default="auto",
    show_default=True,
    help="Whether a graph must be node by node what was exported. auto: unless other versions exported it.",
)
@click.option("--sheet", type=PATH, help="Picture: input, reference, result, difference times 16.")
@click.option("--url", help="Instead: a model that Triton or cisi-serve serves there.")
@click.option("--model-name", help="Its name there.  [default: cisi]")
@click.option("--token-file", type=PATH, help="File with the token that the service asks for.")
def parity(artifact: Path | None, **values: Any) -> None:
    """Compare the graph or engine ARTIFACT with the reference network, and exit with 1 when a comparison fails.
    Without ARTIFACT the float32 graph that ships is checked.

    With its golden file alone this needs neither PyTorch nor the checkpoint; the file must be the one that was
    exported. With --ckpt the golden cases are made afresh, every stored weight and every node is compared with a fresh
    export too, and after a failure the first layer that differs is named. --structure report lets the numbers decide
    about a graph that another tool has rewritten.

    With --backend ARTIFACT runs as `cisi-run` would run it; a checkpoint too. With --url the golden cases go over the
    wire to a service; the default golden file is then that of the graph that ships.
    """
    from cisi_runtime.backends.registry import SHIPPED_GRAPH, is_engine

    options = ParityOptions(artifact or SHIPPED_GRAPH, **values)
    if options.url is not None:
        of_files = options.ckpt or options.backend or options.sheet or options.structure != "auto"
        if artifact is not None or of_files or options.precision != "stored" or options.device != "auto":
            raise click.UsageError("--url goes with --golden, --model-name and --token-file alone")
        _check_served(options, options.url)
        return
    if options.token_file is not None or options.model_name is not None:
        raise click.UsageError("--token-file and --model-name go with --url")
    _check_usage(options)
    checked = _check_file(options) if options.ckpt is None else _check_against_checkpoint(options, options.ckpt)
    _print(options, checked)
    if options.sheet is not None:
        _write_sheet(options, checked.golden)
    report = checked.report
    if report.failures:
        hint = "" if options.ckpt is not None or is_engine(options.artifact) else "; --ckpt would name the layer"
        raise ParityError(f"{options.artifact}: {report.failures} of {report.checks} comparisons failed{hint}")


def _check_served(options: ParityOptions, url: str) -> None:
    from cisi_runtime.backends.served import ServedModel
    from cisi_runtime.parity.checks import check_served_parity
    from cisi_runtime.parity.golden import golden_path, load_golden
    from cisi_runtime.token_file import read_token

    with error_prefix("--token-file"):
        token = None if options.token_file is None else read_token(options.token_file)
    with error_prefix("--golden"):
        golden = load_golden(options.golden or golden_path(options.artifact))
    with error_prefix("--url"), ServedModel(url, options.model_name or "cisi", token) as model:
        report = check_served_parity(model, golden)
        _print(options, _Checked(golden, report))
        if report.failures:
            raise ParityError(f"{url}: {report.failures} of {report.checks} comparisons failed")


def _check_usage(options: ParityOptions) -> None:
    """Raise UsageError for options that exclude each other, and our own errors for files that cannot be used."""
    from cisi_runtime.backends.registry import is_engine
    from cisi_runtime.files import check_writable
    from cisi_runtime.pictures.writing import format_of

    if options.golden is not None and options.ckpt is not None:
        raise click.UsageError("--golden and --ckpt exclude each other")
    if options.backend is None and (options.precision != "stored" or options.device != "auto"):
        raise click.UsageError("--device and --precision go with --backend")
    if options.backend is not None and (options.ckpt is not None or options.sheet is not None):
        raise click.UsageError("--backend excludes --ckpt and --sheet")
    if options.structure != "auto" and options.artifact.suffix != ".onnx":
        raise click.UsageError("--structure is for graphs")
    if options.sheet is not None:
        with error_prefix("--sheet"):
            format_of(options.sheet)
            check_writable(options.sheet)
    if not options.artifact.is_file():
        raise GraphError(f"ARTIFACT: {options.artifact}: no such file")
    if options.artifact.suffix == ".pt" and options.backend is None:
        raise click.UsageError(
            f"{options.artifact} is a checkpoint: expected --backend torch, and --golden of an export"
        )
    if is_engine(options.artifact) and (options.ckpt is not None or options.sheet is not None):
        raise click.UsageError("--ckpt and --sheet are for graphs; an engine is compared with its golden file")


def _check_file(options: ParityOptions) -> _Checked:
    from cisi_runtime.parity.checks import check_backend_parity, check_file_parity, golden_path_of
    from cisi_runtime.parity.golden import load_golden

    with error_prefix("ARTIFACT"):
        golden_file = options.golden or golden_path_of(options.artifact)
    with error_prefix("--golden"):
        golden = load_golden(golden_file)
    is_required = options.structure != "report"
    with error_prefix("ARTIFACT"):
        if options.backend is None:
            return _Checked(golden, check_file_parity(options.artifact, golden, is_required))
        backend = BackendOptions(options.backend, options.device, options.precision)
        return _Checked(golden, check_backend_parity(options.artifact, golden, backend, is_required))


def _check_against_checkpoint(options: ParityOptions, ckpt: Path) -> _Checked:
    """Runs in the export package."""
    from cisi_runtime.backends.graph import read_graph

    with error_prefix("ARTIFACT"):
        info = read_graph(options.artifact)
    (point,) = entry_points(group="cisi.parity", name="checkpoint")
    with error_prefix("--ckpt"):
        return _Checked(*point.load()(info, ckpt, options.structure))


def _print(options: ParityOptions, checked: _Checked) -> None:
    report = checked.report
    say_json(
        {
            "artifact": options.url or str(options.artifact),
            "weights_sha256": checked.golden.weights_sha256,
            **report.as_json(),
            "first_bad_layer": checked.first_bad_layer,
        }
    )
    if LOUDNESS.verbose or report.failures:
        say(report.table())
    say(report.summary())
    if checked.first_bad_layer is not None:
        say(checked.first_bad_layer)


def _write_sheet(options: ParityOptions, golden: Golden) -> None:
    from cisi_runtime.pictures.picture import Picture
    from cisi_runtime.pictures.writing import write_picture

    assert options.sheet is not None
    with error_prefix("--sheet"):
        write_picture(options.sheet, Picture(_sheet(options.artifact, golden)))


def _sheet(graph: Path, golden: Golden) -> npt.NDArray[np.uint8]:
    """A row for each picture of the golden cases: input, reference, result of the graph as written, difference."""
    import numpy as np

    from cisi_runtime.codec import encode_pixels
    from cisi_runtime.parity.checks import graph_variants
    from cisi_runtime.parity.compare import run_case
    from cisi_runtime.pictures.sheet import picture_sheet, show_hole

    rows, captions = [], []
    with graph_variants(graph) as variants:
        _, backend = variants[0]
        for case in golden.cases:
            results = backend.contract.io.pixels(run_case(backend, case.image, case.hole_mask))
            references = encode_pixels(case.completed)
            for image, hole, reference, result in zip(case.image, case.hole_mask, references, results, strict=True):
                difference = np.abs(result.astype(np.int64) - reference)
                amplified = np.minimum(_GAIN * difference, 255).astype(np.uint8)
                rows.append([show_hole(image, hole), reference, result, amplified])
                captions.append([f"{case.name}: input", "reference", "graph", f"difference x {_GAIN}"])
    return picture_sheet(rows, captions)


def main() -> None:
    """Entry point of `cisi-parity`."""
    run_command(parity, "cisi-parity")
