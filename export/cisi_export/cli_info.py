"""`cisi-info`: what a graph is and costs, what the sidecar of an engine says, how a checkpoint was trained."""

from __future__ import annotations

import collections
import dataclasses
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.console import LOUDNESS, say, say_json
from cisi_runtime.errors import error_prefix

if TYPE_CHECKING:
    from cisi_export.cost import Cost
    from cisi_runtime.contract import Contract

_SIDE = 256
_CHECKPOINTS = (".pt", ".pth")
# Columns of a card, and of the names in front of its lines.
_COLUMNS, _INDENT = 100, 11


@command(
    summary="Say what a file is, and what it costs.",
    verbose="Also each convolution, the operators and the largest tensors.",
)
@click.argument("graph", type=PATH)
def info(graph: Path) -> None:
    """Print what GRAPH is, where it comes from and what it costs. For an engine, print what its sidecar says; for a
    checkpoint, how it was trained.

    Arithmetic and tensors are those of one picture, of the graph's own size or 256x256 where it takes any.
    """
    if graph.suffix in _CHECKPOINTS:
        _checkpoint_info(graph)
        return
    if graph.suffix != ".onnx":
        _engine_info(graph)
        return
    with error_prefix("GRAPH"):
        from cisi_runtime.backends.graph import read_graph

        graph_info = read_graph(graph)
    contract, fixed = graph_info.contract, graph_info.fixed
    import onnx

    from cisi_export.cost import cost_of

    with error_prefix("GRAPH"):
        model = onnx.load_from_string(graph_info.serialised())
        cost = cost_of(model, contract, fixed.height or _SIDE, fixed.width or _SIDE)
    card = dataclasses.asdict(cost) | {"flop": cost.flop, "contract": dataclasses.asdict(contract)}
    say_json(card | {"fixed": dataclasses.asdict(fixed)})
    kind = f"{contract.precision}, {contract.target} lowering, face {contract.face}"
    lines = [
        f"{graph}: {graph.stat().st_size / 1e6:.1f} MB",
        *_entry("kind", f"{kind}, takes {fixed}"),
        *_weights_lines(contract),
        *_cost_lines(cost),
    ]
    say("\n".join(lines))


def _checkpoint_info(path: Path) -> None:
    with error_prefix("GRAPH"):
        from cisi_train.checkpoint import load_checkpoint

        checkpoint = load_checkpoint(path)
    contract, training = checkpoint.contract, checkpoint.training
    parameters = sum(tensor.numel() for tensor in checkpoint.weights.values())
    facts = {
        "contract": dataclasses.asdict(contract),
        "bytes": path.stat().st_size,
        "parameters": parameters,
        "options": checkpoint.configuration,
        "step": None if training is None else training["step"],
    }
    say_json(facts)
    resumable = "weights alone" if training is None else f"at step {training['step']} of its run, can be resumed"
    sizes = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(contract.architecture).items())
    options = ", ".join(f"{name} {value}" for name, value in checkpoint.configuration.items() if value is not None)
    lines = [
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, checkpoint, {resumable}",
        *_weights_lines(contract),
        *_entry("network", f"{parameters / 1e6:.2f} M parameters with the encoder that only training needs; {sizes}"),
        *_entry("options", options or "not known"),
        f"{'next':<{_INDENT}}cisi-export --ckpt {shlex.quote(str(path))}",
    ]
    say("\n".join(lines))


def _weights_lines(contract: Contract) -> list[str]:
    provenance = contract.provenance
    return [
        *_entry("weights", f"preset {provenance.preset}, {provenance.steps} steps on {provenance.data}"),
        *_entry("licence", f"of the data: {provenance.data_licence}"),
        *_entry("SHA-256", f"of the weights: {contract.weights_sha256}"),
    ]


def _entry(name: str, text: str) -> list[str]:
    """Lines of at most 100 columns, the name in front of the first."""
    return textwrap.wrap(f"{name:<{_INDENT}}{text}", _COLUMNS, subsequent_indent=" " * _INDENT, break_long_words=False)


def _engine_info(engine: Path) -> None:
    with error_prefix("GRAPH"):
        from cisi_runtime.engines.sidecar import load_engine

        _, sidecar = load_engine(engine)
    say_json(dataclasses.asdict(sidecar))
    options, contract = sidecar.options, sidecar.contract
    target = f"{sidecar.gpu} (SM {sidecar.capability})" if sidecar.gpu else options.target
    workspace = "all" if options.workspace_mib is None else f"{options.workspace_mib} MiB"
    takes = options.profile.limited(sidecar.fixed)
    lines = [
        f"{engine}: {sidecar.engine_bytes / 1e6:.1f} MB, {contract.precision}, face {contract.face}",
        *_entry("built by", f"{options.flavour} {sidecar.version} for {target}, in {sidecar.seconds:.1f} s"),
        *_entry("", f"level {options.level}, workspace {workspace}, TF32 {'on' if options.tf32 else 'off'}"),
        *_entry("takes", f"BATCHxWIDTHxHEIGHT {takes}"),
        *_entry("from", f"{sidecar.graph}, SHA-256 {sidecar.graph_sha256}"),
        *_weights_lines(contract),
        *_entry("parity", sidecar.parity or "not known: the engine has not been compared on a GPU"),
        *_entry("precision", str(sidecar.audit)),
    ]
    if LOUDNESS.verbose:
        lines += textwrap.indent(sidecar.audit.table(), " " * _INDENT).splitlines()
    say("\n".join(lines))


def _cost_lines(cost: Cost) -> list[str]:
    precisions = collections.Counter(convolution.precision for convolution in cost.convolutions)
    lines = [
        *_entry("parameters", f"{cost.parameters / 1e6:.2f} M, {cost.parameter_bytes / 1e6:.1f} MB"),
        *_entry("arithmetic", f"{cost.flop / 1e9:.2f} GFLOP for {cost.width}x{cost.height}"),
    ]
    for part, flop in cost.flop_by_part.items():
        lines.append(f"{'':<{_INDENT}}{part:<26} {flop / 1e9:>8.2f} GFLOP  {flop / cost.flop:>6.1%}")
    lines += _entry("precision", ", ".join(f"{count} convolutions {name}" for name, count in precisions.items()))
    if not LOUDNESS.verbose:
        return lines
    for convolution in cost.convolutions:
        name, gflop = convolution.name, convolution.flop / 1e9
        lines.append(f"{'':<{_INDENT}}{name:<40} {convolution.precision:<8} {gflop:>8.3f} GFLOP")
    operators = ", ".join(f"{count} {name}" for name, count in cost.operators.items())
    lines += _entry("graph", f"{cost.nodes} nodes: {operators}")
    lines += _entry("memory", "largest tensors of one picture:")
    for name, shape, size in cost.largest_tensors:
        lines.append(f"{'':<{_INDENT}}{name:<40} {shape:<16} {size / 1e6:>8.1f} MB")
    return lines


def main() -> None:
    """Entry point of `cisi-info`."""
    run_command(info, "cisi-info")
