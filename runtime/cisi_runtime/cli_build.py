"""`cisi-build`: a graph in, a TensorRT engine out."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cisi_runtime.command import option, run_command

if TYPE_CHECKING:
    from cisi_runtime.engines.options import Profile, Size


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Engine file; default: GRAPH with suffix .engine.")
@click.option("--flavour", type=click.Choice(["tensorrt", "tensorrt-rtx"]), help="Default: the one that is installed.")
@click.option(
    "--capability", "capabilities", multiple=True, help="TensorRT-RTX: compute capability, 8.9; default: all of them."
)
@click.option("--size", help="WIDTHxHEIGHT or one side: an engine for this size alone.")
@click.option("--batch", type=click.IntRange(1), help="With --size: pictures at a time.  [default: 1]")
@click.option("--min", "least", help="Smallest pictures, BATCHxWIDTHxHEIGHT.  [default: 1x64x64]")
@click.option("--opt", "usual", help="The pictures to be quickest with.  [default: 1x256x256]")
@click.option("--max", "most", help="Largest pictures.  [default: 4x512x512]")
@click.option("--workspace", "workspace_mib", type=click.IntRange(1), help="Most scratch memory, in MiB.")
@click.option("--level", type=click.IntRange(0, 5), default=3, show_default=True, help="Higher tries more kernels.")
@click.option("--tf32", is_flag=True, help="Let float32 convolutions round what they multiply to 10 bits.")
@click.option("--no-cache", is_flag=True, help="Build although the same engine was built before.")
@click.option("--verbose", is_flag=True, help="Every convolution's type, and the line for NVIDIA's own program.")
@click.option("--json", "as_json", is_flag=True, help="The sidecar on stdout instead of words.")
def build(
    graph: Path,
    out: Path | None,
    flavour: str | None,
    capabilities: tuple[str, ...],
    size: str | None,
    batch: int | None,
    least: str | None,
    usual: str | None,
    most: str | None,
    workspace_mib: int | None,
    level: int,
    tf32: bool,
    no_cache: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Build a TensorRT engine from GRAPH, and check that its convolutions have the precision that the graph asks for.

    TensorRT-RTX builds for several kinds of cards on any machine; TensorRT for the GPU of this one. Beside the engine
    stands ENGINE.json: where it comes from, what it is and where it runs. Exits with 1, writing nothing, when a
    convolution is of less precision than asked.
    """
    from cisi_runtime.engines.options import CAPABILITIES, BuildOptions, Profile, choose_flavour
    from cisi_runtime.files import check_writable

    # As Ctrl-C: the building process ends, and what is half written goes.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    out = out or graph.with_suffix(".engine")
    if out.suffix == ".onnx":
        raise click.UsageError(f"--out {out}: expected the name of an engine, not of a graph")
    with option("--out"):
        check_writable(out)
    with option("--flavour"):
        chosen = choose_flavour(flavour)
    if flavour is None:
        click.echo(f"{chosen}: the one that is installed", err=True)
    if not capabilities and chosen == "tensorrt-rtx":
        capabilities = CAPABILITIES
    profile = _profile(size, batch, least, usual, most)
    from cisi_runtime.backends.ort import fixed_shape
    from cisi_runtime.engines.make import make_engine
    from cisi_runtime.engines.progress import shown
    from cisi_runtime.engines.trtexec import trtexec_line

    with option("GRAPH"):
        fixed = dataclasses.astuple(fixed_shape(graph))
    if profile is None:
        profile = Profile().limited(fixed)
    elif None not in fixed:
        raise click.UsageError("GRAPH takes one size and batch; --size, --batch, --min, --opt, --max are for others")
    with option("--capability"):
        options = BuildOptions(chosen, capabilities, profile, workspace_mib, level, tf32)
    with option("GRAPH"), shown() as progress:
        made = make_engine(graph, out, options, use_cache=not no_cache, progress=progress)
    for note in made.notes:
        click.echo(note, err=True)
    sidecar = made.sidecar
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(sidecar)))
        return
    if verbose:
        is_free = None in sidecar.fixed
        click.echo(sidecar.audit.table())
        click.echo(trtexec_line(graph, out, options, sidecar.contract, is_free=is_free))
    click.echo(f"precision audit: {sidecar.audit}  pass")
    click.echo(f"parity: {sidecar.parity or 'not known yet'}")
    how = "from the cache" if made.from_cache else f"built in {sidecar.seconds:.1f} s"
    click.echo(
        f"{out}: {sidecar.contract.precision}, {chosen} {sidecar.version} for {options.target}, "
        f"{sidecar.engine_bytes / 1e6:.1f} MB, {how}"
    )


def _profile(
    size: str | None, batch: int | None, least: str | None, usual: str | None, most: str | None
) -> Profile | None:
    from cisi_runtime.engines.options import Profile, Size

    ranges = {"--min": least, "--opt": usual, "--max": most}
    given = [name for name, value in ranges.items() if value is not None]
    if size is None:
        if batch is not None:
            raise click.UsageError("--batch needs --size; a range of batches is --min and --max")
        if not given:
            return None
        values = [_parse(name, text) if text is not None else None for name, text in ranges.items()]
        plain = Profile()
        usual_size = values[1] or plain.usual
        # A bound that was not given moves out of the way of the one that was.
        smallest = values[0] or _each(min, plain.least, usual_size)
        largest = values[2] or _each(max, plain.most, usual_size)
        if values[1] is None:
            usual_size = _each(min, _each(max, usual_size, smallest), largest)
        with option(" ".join(given) or "--min, --opt, --max"):
            return Profile(smallest, usual_size, largest)
    if given:
        raise click.UsageError(f"--size and {given[0]} exclude each other")
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    if match is None:
        raise click.UsageError(f"--size {size}: expected WIDTHxHEIGHT, or one side")
    one = Size(batch or 1, int(match[2] or match[1]), int(match[1]))
    with option("--size"):
        return Profile(one, one, one)


def _parse(name: str, text: str) -> Size:
    from cisi_runtime.engines.options import Size

    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None:
        raise click.UsageError(f"{name} {text}: expected BATCHxWIDTHxHEIGHT, as 1x256x256")
    return Size(int(match[1]), int(match[3]), int(match[2]))


def _each(choose: Callable[[int, int], int], one: Size, other: Size) -> Size:
    """The smaller or larger of each side."""
    from cisi_runtime.engines.options import Size

    pairs = zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)
    return Size(*(choose(*pair) for pair in pairs))


def main() -> None:
    """Entry point of `cisi-build`."""
    run_command(build, "cisi-build")
