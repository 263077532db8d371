"""`cisi-build`: a graph in, a TensorRT engine out."""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import LOUDNESS, say, say_json, tell
from cisi_runtime.errors import error_prefix

if TYPE_CHECKING:
    from cisi_runtime.backends.graph import GraphInfo
    from cisi_runtime.building.make import MadeEngine
    from cisi_runtime.engines.options import BuildOptions, Profile, Size


@dataclasses.dataclass(frozen=True)
class BuildCommand:
    """What `cisi-build` was asked to do; each field is the option of its name. min, opt, max, size: still as text."""

    graph: Path
    out: Path
    flavour: str | None
    capabilities: tuple[str, ...]
    size: str | None
    batch: int | None
    min: str | None
    opt: str | None
    max: str | None
    workspace_mib: int | None
    level: int
    tf32: bool
    no_cache: bool


@command(
    summary="Build a TensorRT engine from a graph.",
    verbose="Also every convolution's type, and the command line for NVIDIA's program.",
    as_json="The sidecar on stdout instead of words.",
)
@click.argument("graph", type=PATH)
@click.option("-o", "--out", type=PATH, help="Engine file; default: GRAPH with suffix .engine.")
@click.option("--flavour", type=click.Choice(["tensorrt", "tensorrt-rtx"]), help="Default: the one that is installed.")
@click.option(
    "--capability", "capabilities", multiple=True, help="TensorRT-RTX: compute capability, 8.9; default: all of them."
)
@click.option("--size", help="WIDTHxHEIGHT or one side: an engine for this size alone.")
@click.option("--batch", type=click.IntRange(1), help="With --size: pictures at a time.  [default: 1]")
@click.option("--min", help="Smallest pictures, BATCHxWIDTHxHEIGHT.  [default: 1x64x64]")
@click.option("--opt", help="Pictures to be quickest with.  [default: 1x256x256]")
@click.option("--max", help="Largest pictures.  [default: 4x512x512]")
@click.option("--workspace", "workspace_mib", type=click.IntRange(1, 1 << 20), help="Limit of scratch memory, in MiB.")
@click.option("--level", type=click.IntRange(0, 5), default=3, show_default=True, help="Higher tries more kernels.")
@click.option("--tf32", is_flag=True, help="Let float32 convolutions round their factors to 10 bits of mantissa.")
@click.option("--no-cache", is_flag=True, help="Build although the same engine was built before.")
def build(graph: Path, out: Path | None, **values: Any) -> None:
    """Build a TensorRT engine from GRAPH, and check that its convolutions have the precision that the graph asks for.

    TensorRT-RTX builds for several kinds of cards on any machine; TensorRT builds for the GPU of this one. Beside the
    engine stands ENGINE.json: where it comes from, what it is and where it runs. When a convolution has less precision
    than asked for, nothing is written and the exit status is 1.
    """
    command = BuildCommand(graph, out or graph.with_suffix(".engine"), **values)
    # As Ctrl-C: the building process ends, and half-written files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    info, options = _build_options(command)
    from cisi_runtime.building.make import make_engine
    from cisi_runtime.building.progress import progress_bar

    with error_prefix("GRAPH"), progress_bar() as progress:
        engine = make_engine(info, command.out, options, use_cache=not command.no_cache, progress=progress)
    _print(command, engine)


def _build_options(command: BuildCommand) -> tuple[GraphInfo, BuildOptions]:
    """The graph and the options that its engine is built with. Raises UsageError for options that do not fit."""
    from cisi_runtime.engines.options import CAPABILITIES, BuildOptions, Profile, choose_flavour
    from cisi_runtime.engines.sidecar import ENGINE_SUFFIXES
    from cisi_runtime.files import check_writable

    if command.out.suffix not in ENGINE_SUFFIXES:
        raise click.UsageError(f"--out {command.out}: expected a name that ends in {', '.join(ENGINE_SUFFIXES)}")
    with error_prefix("--out"):
        check_writable(command.out)
    with error_prefix("--flavour"):
        flavour = choose_flavour(command.flavour)
    if command.flavour is None:
        tell(f"{flavour}: the one that is installed")
    capabilities = command.capabilities or (CAPABILITIES if flavour == "tensorrt-rtx" else ())
    profile = _profile(command)
    from cisi_runtime.backends.graph import read_graph

    with error_prefix("GRAPH"):
        info = read_graph(command.graph)
    if profile is None:
        profile = Profile().limited(info.fixed.sides)
    elif None not in info.fixed.sides:
        raise click.UsageError("GRAPH takes one size and batch; --size, --batch, --min, --opt, --max are for others")
    with error_prefix("--capability"):
        options = BuildOptions(flavour, capabilities, profile, command.workspace_mib, command.level, command.tf32)
    return info, options


def _profile(command: BuildCommand) -> Profile | None:
    """The optimisation profile that the options describe, None without any."""
    ranges = {name: text for name in ("min", "opt", "max") if (text := getattr(command, name)) is not None}
    if command.size is None:
        if command.batch is not None:
            raise click.UsageError("--batch needs --size; a range of batches is --min and --max")
        return _profile_of_ranges(ranges) if ranges else None
    if ranges:
        raise click.UsageError(f"--size and --{next(iter(ranges))} exclude each other")
    return _profile_of_size(command.size, command.batch or 1)


def _profile_of_ranges(ranges: dict[str, str]) -> Profile:
    """Bounds that were not given move out of the way of those that were."""
    from cisi_runtime.engines.options import Profile

    sizes = {name: _parse_size(name, text) for name, text in ranges.items()}
    default = Profile()
    opt = sizes.get("opt", default.opt)
    smallest = sizes.get("min") or _sidewise(min, default.min, opt)
    largest = sizes.get("max") or _sidewise(max, _sidewise(max, default.max, opt), smallest)
    if "opt" not in sizes:
        opt = _sidewise(min, _sidewise(max, opt, smallest), largest)
    with error_prefix(" ".join(f"--{name}" for name in ranges)):
        return Profile(smallest, opt, largest)


def _profile_of_size(text: str, batch: int) -> Profile:
    from cisi_runtime.engines.options import Profile, Size

    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise click.UsageError(f"--size {text}: expected WIDTHxHEIGHT, or one side")
    size = Size(batch, int(match[2] or match[1]), int(match[1]))
    with error_prefix("--size"):
        return Profile(size, size, size)


def _parse_size(name: str, text: str) -> Size:
    from cisi_runtime.engines.options import Size

    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None:
        raise click.UsageError(f"--{name} {text}: expected BATCHxWIDTHxHEIGHT, as 1x256x256")
    return Size(int(match[1]), int(match[3]), int(match[2]))


def _sidewise(choose: Callable[[int, int], int], a: Size, b: Size) -> Size:
    """The smaller or larger of each side."""
    from cisi_runtime.engines.options import Size

    return Size(*(choose(*pair) for pair in zip(a.sides, b.sides, strict=True)))


def _print(command: BuildCommand, engine: MadeEngine) -> None:
    for note in engine.notes:
        tell(note)
    sidecar = engine.sidecar
    say_json(dataclasses.asdict(sidecar))
    if LOUDNESS.verbose:
        from cisi_runtime.building.trtexec import trtexec_line

        is_free = None in sidecar.fixed
        say(sidecar.audit.table())
        say(trtexec_line(command.graph, command.out, sidecar.options, sidecar.contract, is_free=is_free))
    say(engine.summary())


def main() -> None:
    """Entry point of `cisi-build`."""
    run_command(build, "cisi-build")
