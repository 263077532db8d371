"""`cisi-info`: what a graph is and costs, what the sidecar of an engine says, how a checkpoint was trained."""

from __future__ import annotations

import collections
import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cisi_runtime.cli.command import PATH, command, run_command
from cisi_runtime.errors import error_prefix

if TYPE_CHECKING:
    from cisi_export.cost import Cost
    from cisi_runtime.contract import Contract

_SIDE = 256
_CHECKPOINTS = (".pt", ".pth")


@command
@click.argument("graph", type=PATH)
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the card.")
def info(graph: Path, as_json: bool) -> None:
    """Print what GRAPH is, where it comes from and what it costs. For an engine, print what its sidecar says; for a
    checkpoint, how it was trained.

    Arithmetic and tensors are those of one picture, of the graph's own size or 256x256 where it takes any.
    """
    if graph.suffix in _CHECKPOINTS:
        _checkpoint_info(graph, as_json=as_json)
        return
    if graph.suffix != ".onnx":
        _engine_info(graph, as_json=as_json)
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
    if as_json:
        card = dataclasses.asdict(cost) | {"flop": cost.flop, "contract": dataclasses.asdict(contract)}
        click.echo(json.dumps(card | {"fixed": dataclasses.asdict(fixed)}))
        return
    click.echo(
        f"{graph}: {graph.stat().st_size / 1e6:.1f} MB, {contract.precision}, {contract.target} lowering, face "
        f"{contract.face}, takes {fixed}"
    )
    click.echo(_card(cost, contract))


def _checkpoint_info(path: Path, *, as_json: bool) -> None:
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
    if as_json:
        click.echo(json.dumps(facts))
        return
    resumable = "weights alone" if training is None else f"at step {training['step']} of its run, can be resumed"
    sizes = ", ".join(f"{name} {value}" for name, value in dataclasses.asdict(contract.architecture).items())
    options = ", ".join(f"{name} {value}" for name, value in checkpoint.configuration.items() if value is not None)
    lines = [
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, checkpoint, {resumable}",
        *_weights_lines(contract),
        f"network    {parameters / 1e6:.2f} M parameters; {sizes}",
        f"options    {options or 'not known'}",
        f"next       cisi-export --ckpt {shlex.quote(str(path))} makes a graph of it, whose cost cisi-info shows",
    ]
    click.echo("\n".join(lines))


def _weights_lines(contract: Contract) -> list[str]:
    provenance = contract.provenance
    return [
        f"weights    preset {provenance.preset}, {provenance.steps} steps on {provenance.data}",
        f"           licence of the data: {provenance.data_licence}",
        f"           SHA-256 {contract.weights_sha256}",
    ]


def _engine_info(engine: Path, *, as_json: bool) -> None:
    with error_prefix("GRAPH"):
        from cisi_runtime.engines.sidecar import load_engine

        _, sidecar = load_engine(engine)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(sidecar)))
        return
    options, contract = sidecar.options, sidecar.contract
    target = f"{sidecar.gpu} (SM {sidecar.capability})" if sidecar.gpu else options.target
    workspace = "all" if options.workspace_mib is None else f"{options.workspace_mib} MiB"
    takes = options.profile.limited(sidecar.fixed)
    lines = [
        f"{engine}: {sidecar.engine_bytes / 1e6:.1f} MB, {contract.precision}, face {contract.face}",
        f"built by   {options.flavour} {sidecar.version} for {target}, in {sidecar.seconds:.1f} s",
        f"           level {options.level}, workspace {workspace}, TF32 {'on' if options.tf32 else 'off'}",
        f"takes      BATCHxWIDTHxHEIGHT {takes}",
        f"from       {sidecar.graph}, SHA-256 {sidecar.graph_sha256}",
        *_weights_lines(contract),
        f"parity     {sidecar.parity or 'not known: the engine has not been compared on a GPU'}",
        f"precision  {sidecar.audit}",
    ]
    click.echo("\n".join([*lines, *(f"           {line}" for line in sidecar.audit.table().splitlines())]))


def _card(cost: Cost, contract: Contract) -> str:
    lines = [
        *_weights_lines(contract),
        f"parameters {cost.parameters / 1e6:.2f} M, {cost.parameter_bytes / 1e6:.1f} MB",
        f"graph      {cost.nodes} nodes: " + ", ".join(f"{count} {name}" for name, count in cost.operators.items()),
        f"arithmetic {cost.flop / 1e9:.2f} GFLOP for {cost.width}x{cost.height}",
    ]
    for part, flop in cost.flop_by_part.items():
        lines.append(f"           {part:<26} {flop / 1e9:>8.2f} GFLOP  {flop / cost.flop:>6.1%}")
    precisions = collections.Counter(convolution.precision for convolution in cost.convolutions)
    lines.append("precision  " + ", ".join(f"{count} convolutions {name}" for name, count in precisions.items()))
    for convolution in cost.convolutions:
        lines.append(
            f"           {convolution.name:<40} {convolution.precision:<8} {convolution.flop / 1e9:>8.3f} GFLOP"
        )
    lines.append("memory     largest tensors of one picture:")
    for name, shape, size in cost.largest_tensors:
        lines.append(f"           {name:<40} {shape:<16} {size / 1e6:>8.1f} MB")
    return "\n".join(lines)


def main() -> None:
    """Entry point of `cisi-info`."""
    run_command(info, "cisi-info")
