"""`python -m benchmarks.sound_graphs`: sound graphs of many checkpoints must pass every parity check.

Checkpoints of different presets, seeds and scales of weights are exported for other sizes, batches, faces and lowerings
each, written, and checked as `cisi-parity` does, without and with the checkpoint. Prints how close each came to its
tolerance, and exits with 1 when one was refused.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import tempfile
import time
from pathlib import Path

import click
import torch

from cisi_export.against_checkpoint import verify_against_checkpoint
from cisi_export.exporting import GraphOptions, export_graph
from cisi_runtime.architecture import PRESETS, Architecture
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.contract import Contract, Provenance
from cisi_runtime.errors import CisiError
from cisi_runtime.parity.checks import check_parity
from cisi_runtime.parity.verdict import ParityReport
from cisi_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cisi_train.network import Generator

_PROVENANCE = Provenance("random weights", "CC0", "0" * 64, 0, 0, "tiny")
_ARCHITECTURES = (
    PRESETS["tiny"],
    PRESETS["small"],
    dataclasses.replace(PRESETS["tiny"], dim=12, decoder_blocks=2, dilations=(1, 3, 6)),
)
_SCALES = (0.5, 1.0, 3.0)
_FLOAT_GRAPHS = tuple(
    GraphOptions(precision, target, face, size, batch)
    for (precision, target), face, (size, batch) in itertools.product(
        (("float32", "cpu"), ("float32", "tensorrt"), ("float16", "tensorrt")),
        ("uint8", "tensor"),
        ((None, None), ((64, 96), None), ((128, 64), 2), (None, 3)),
    )
)


def random_checkpoint(architecture: Architecture, seed: int, scale: float) -> Checkpoint:
    """A checkpoint of random weights that hide no error. scale: of the weights before norms, which remove it."""
    torch.manual_seed(seed)
    generator = Generator(architecture)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif name.startswith("inferred_content.down"):
                parameter.mul_(scale)
        generator.decoder.to_rgb.weight.mul_(0.5)
    contract = Contract(architecture, _PROVENANCE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "random.pt")
        save_checkpoint(path, contract, generator.state_dict(), configuration={})
        return load_checkpoint(path)


def check(checkpoint: Checkpoint, options: GraphOptions, folder: Path) -> tuple[ParityReport, ...]:
    """Export, write, and check without and with the checkpoint. Raises CisiError where a step refuses."""
    path, ckpt = folder / "graph.onnx", folder / "graph.pt"
    save_checkpoint(ckpt, checkpoint.contract, checkpoint.weights, configuration={})
    export = export_graph(checkpoint, options)
    export.save(path)
    return export.parity, check_parity(path), verify_against_checkpoint(read_graph(path), ckpt)[1]


def _margin(reports: tuple[ParityReport, ...]) -> float:
    return min(item.margin_db for report in reports for item in report.comparisons)


@click.command()
@click.option("--checkpoints", type=click.IntRange(min=1), default=30, show_default=True)
@click.option("--graphs", type=click.IntRange(min=1), default=2, show_default=True, help="Of each checkpoint.")
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the first checkpoint.")
def main(checkpoints: int, graphs: int, first: int) -> None:
    """Check sound graphs, and exit with 1 when one is refused."""
    kinds = list(itertools.product(_ARCHITECTURES, _SCALES))
    refused = total = 0
    start = time.monotonic()
    for seed in range(first, first + checkpoints):
        architecture, scale = kinds[seed % len(kinds)]
        checkpoint = random_checkpoint(architecture, seed, scale)
        for number in range(graphs):
            chosen = _FLOAT_GRAPHS[(seed * graphs + number) % len(_FLOAT_GRAPHS)]
            total += 1
            label = f"seed {seed}, dim {architecture.dim}, scale {scale}: {chosen.precision} {chosen.target} "
            label += f"{chosen.face} size {chosen.size or 'any'} batch {chosen.batch or 'any'}"
            with tempfile.TemporaryDirectory() as folder:
                try:
                    reports = check(checkpoint, chosen, Path(folder))
                except CisiError as error:
                    refused += 1
                    click.echo(f"{label}: REFUSED: {error}")
                    continue
            passed = all(report.passed for report in reports)
            refused += not passed
            click.echo(f"{label}: {'pass' if passed else 'REFUSED'}, margin {_margin(reports):.1f} dB")
            if not passed:
                click.echo("\n".join(report.summary() for report in reports if not report.passed))
    click.echo(
        f"{refused} of {total} sound graphs refused, {checkpoints} checkpoints, {time.monotonic() - start:.0f} s"
    )
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
