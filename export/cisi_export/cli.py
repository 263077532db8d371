"""`cisi-export`: a checkpoint in, one verified ONNX graph and its golden file out."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click

from cisi_runtime.architecture import MIN_SIZE, SIZE_MULTIPLE
from cisi_runtime.command import option, run_command
from cisi_runtime.errors import ParityError

# Of a graph of one size and batch: the largest whose golden file, with one case, stays below 10 MB (9.8 MB measured).
_MOST_PIXELS = 1024 * 1024
# With a free size: golden cases have up to 192x192 pixels each.
_MOST_BATCH = 28


@click.command()
@click.option("--ckpt", type=click.Path(path_type=Path), required=True, help="Checkpoint that cisi-train wrote.")
@click.option("--fp16", is_flag=True, help="Float16 convolutions, for TensorRT.")
@click.option("--int8", is_flag=True, help="INT8 convolutions (Q/DQ), for --target cpu or tensorrt; needs --calib.")
@click.option("--calib", type=click.Path(path_type=Path), help="Folder of photographs to find INT8 ranges with.")
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
@click.option("--out", type=click.Path(path_type=Path), help="ONNX file; default: beside the checkpoint, by its name.")
def export(
    ckpt: Path,
    fp16: bool,
    int8: bool,
    calib: Path | None,
    target: str | None,
    face: str,
    size: str,
    batch: str,
    engine: bool,
    out: Path | None,
) -> None:
    """Export a checkpoint to one ONNX graph, with a golden file beside it, and check that it is the same network.

    Prints the parity table. When a rung fails, nothing is written and the exit status is 1.
    """
    target = target or ("tensorrt" if fp16 or engine else "cpu")
    _check_options(fp16, int8, calib, target, engine)
    precision = "float16" if fp16 else "int8" if int8 else "float32"
    fixed_size, fixed_batch = _parse_size(size), _parse_batch(batch)
    if fixed_size and fixed_size[0] * fixed_size[1] * (fixed_batch or 1) > _MOST_PIXELS:
        raise click.UsageError(
            f"--size {size} with --batch {batch}: expected at most {_MOST_PIXELS} pixels together (1024x1024), "
            "because the golden file of such a graph would exceed 10 MB; larger ones run through a dynamic graph"
        )
    if fixed_batch and not fixed_size and fixed_batch > _MOST_BATCH:
        raise click.UsageError(f"--batch {batch}: expected at most {_MOST_BATCH} with a free size")
    fixed = (f".{size}" if fixed_size else "") + (f".batch{batch}" if fixed_batch else "")
    out = out or ckpt.with_name(ckpt.stem + fixed + _suffix(precision, target, face))
    if out.suffix != ".onnx":
        raise click.UsageError(f"--out {out}: expected a name that ends in .onnx")
    from cisi_runtime.files import check_writable, whole_file
    from cisi_runtime.golden import fitting, golden_path, save_golden
    from cisi_runtime.parity import parity_table, weights_line

    with option("--out"):
        check_writable(out)
    flavour = ""
    if engine:
        from cisi_runtime.engines.options import choose_flavour

        with option("--engine"):
            flavour = choose_flavour()
    from cisi_calibration.calibrate import Request
    from cisi_calibration.defaults import IMAGES
    from cisi_calibration.pictures import choose_photographs
    from cisi_export.build import build
    from cisi_train.checkpoint import load_checkpoint

    with option("--ckpt"):
        checkpoint = load_checkpoint(ckpt)
    request = None
    if calib is not None:
        with option("--calib"):
            photographs = choose_photographs(calib, IMAGES)
        for warning in photographs.warnings:
            click.echo(f"warning: {calib}: {warning}", err=True)
        request = Request(photographs)
    result = build(
        checkpoint,
        precision=precision,
        target=target,
        face=face,
        size=fixed_size,
        batch=fixed_batch,
        request=request,
    )
    climb = result.climb
    if result.calibration is not None:
        click.echo(result.calibration.report())
    click.echo(parity_table(climb.comparisons))
    click.echo(weights_line(climb.weights))
    if climb.failures:
        raise ParityError(f"{climb.failures} of {climb.checks} comparisons failed: {out} was not written")
    kept = fitting(result.golden)
    left_out = len(result.golden.cases) - len(kept.cases)
    if left_out:
        click.echo(f"{golden_path(out)}: without {left_out} of the cases above, to stay below 10 MB", err=True)
    with option("--out"):
        save_golden(golden_path(out), kept)
        if result.calibration is not None:
            stem = golden_path(out).name.removesuffix(".golden.npz")
            result.calibration.table.save(out.with_name(f"{stem}.ranges.json"))
        with whole_file(out) as temporary:
            temporary.write_bytes(result.model.SerializeToString(deterministic=True))
    click.echo(f"{out}: {precision}, {target} lowering, {out.stat().st_size / 1e6:.1f} MB")
    click.echo(f"{golden_path(out)}: {golden_path(out).stat().st_size / 1e6:.1f} MB")
    if engine:
        with option("--engine"):
            _build_engine(out, flavour)


def _build_engine(graph: Path, flavour: str) -> None:
    from cisi_runtime.backends.ort import fixed_shape
    from cisi_runtime.engines.make import make_engine
    from cisi_runtime.engines.options import CAPABILITIES, BuildOptions, Profile
    from cisi_runtime.engines.progress import shown

    profile = Profile().limited(dataclasses.astuple(fixed_shape(graph)))
    options = BuildOptions(flavour, CAPABILITIES if flavour == "tensorrt-rtx" else (), profile)
    path = graph.with_suffix(".engine")
    with shown() as progress:
        made = make_engine(graph, path, options, progress=progress)
    for note in made.notes:
        click.echo(note, err=True)
    click.echo(f"{path}: precision audit: {made.sidecar.audit}  pass")
    how = "from the cache" if made.from_cache else f"built in {made.sidecar.seconds:.1f} s"
    parity = made.sidecar.parity or "not known yet"
    click.echo(f"{path}: {flavour} {made.sidecar.version} for {options.target}, {how}; parity {parity}")


def _check_options(fp16: bool, int8: bool, calib: Path | None, target: str, engine: bool) -> None:
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


def _parse_size(text: str) -> tuple[int, int] | None:
    """Height and width."""
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


def main() -> None:
    """Entry point of `cisi-export`."""
    run_command(export, "cisi-export")
