"""`cisi-triton`: a graph or an engine in, a model repository for Triton out."""

from __future__ import annotations

import dataclasses
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import say, say_json, tell, tell_more, warn
from cisi_runtime.errors import error_prefix

if TYPE_CHECKING:
    from cisi_runtime.triton.config import ServedNetwork

# Triton keeps such numbers in 32 bits.
_COUNT = click.IntRange(1, 2**31 - 1)


@dataclasses.dataclass(frozen=True)
class TritonOptions:
    """What `cisi-triton` was asked to do; each field is the option of its name. folder: DIR."""

    folder: Path
    model: Path | None
    max_batch: int | None
    queue: int
    workers: int
    no_photo: bool


@command(summary="Write a model repository for NVIDIA's Triton.", verbose="Also the configuration of each model.")
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--model", type=PATH, help="Graph, or engine of TensorRT; default: the INT8 graph that ships.")
@click.option(
    "--max-batch",
    type=_COUNT,
    help="Pictures that Triton may put together.  [default: 4; for an engine, what its profile allows]",
)
@click.option("--queue", type=_COUNT, default=64, show_default=True, help="Requests of a model that wait.")
@click.option("--workers", type=_COUNT, default=1, show_default=True, help="Processes that inpaint photographs.")
@click.option("--no-photo", is_flag=True, help="The network alone; needs no Python inside of Triton.")
def triton(**values: Any) -> None:
    """Write a model repository for NVIDIA's Triton Inference Server into DIR, which must be empty or not exist.

    It holds two models. `cisi` is the network: pixels and hole masks of equal sizes, in batches. `cisi-photo` is what
    `cisi-run` does: the files of a photograph and its mask in, the file of the completed photograph out. Its Python
    needs cisi-net.
    """
    options = TritonOptions(**values)
    if options.no_photo and options.workers > 1:
        raise click.UsageError("--workers is for photographs, and --no-photo leaves them out")
    # As Ctrl-C: half-written files are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from cisi_runtime.files import check_empty_folder
    from cisi_runtime.triton.repository import read_network, write_repository

    with error_prefix("DIR"):
        check_empty_folder(options.folder)
    with error_prefix("--model" if options.max_batch is None else "--model and --max-batch"):
        network = read_network(options.model, options.max_batch)
    with error_prefix("DIR"):
        write_repository(
            options.folder, network, queue=options.queue, workers=options.workers, photo=not options.no_photo
        )
    _print(options, network)


def _print(options: TritonOptions, network: ServedNetwork) -> None:
    if network.capability is not None:
        card = f"a card of compute capability {network.capability}"
        tell(f"the plan runs in TensorRT {network.version} on {card} alone")
    elif network.contract.precision == "int8" and network.companion is None:
        warn("no golden file is beside the graph, so no CPU is checked before it serves INT8")
    batches = f"batches of up to {network.max_batch}" if network.batches else f"batches of {network.fixed[0]}"
    height, width = ("any" if side is None else side for side in network.fixed[1:])
    kind = f"{network.contract.precision}, {network.contract.face} face"
    say(f"{options.folder}: cisi: {kind}, {batches}, width {width}, height {height}")
    if not options.no_photo:
        say(f"{options.folder}: cisi-photo: {options.workers} {'process' if options.workers == 1 else 'processes'}")
    configurations = sorted(options.folder.glob("*/config.pbtxt"))
    for path in configurations:
        tell_more(f"{path}:\n{path.read_text().rstrip()}")
    say_json(
        {
            "folder": str(options.folder),
            "models": [path.parent.name for path in configurations],
            "precision": network.contract.precision,
            "face": network.contract.face,
            "max_batch": network.max_batch,
            "fixed": list(network.fixed),
        }
    )


def main() -> None:
    """Entry point of `cisi-triton`."""
    run_command(triton, "cisi-triton")
