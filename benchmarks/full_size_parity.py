"""`make parity`: every parity check at full size. The test suite runs them at tiny size.

Preset `paper` with random weights that hide nothing, and the shipped weights; float32 and float16, both lowerings, both
faces, for one size and for any. With `--calib FOLDER` also INT8 of the shipped weights; random ones have no useful
ranges.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

import click
import torch
from tests.support.networks import provenance, roughen

from cisi_calibration.defaults import IMAGES
from cisi_calibration.photographs import choose_photographs
from cisi_calibration.quantisation import CalibrationOptions
from cisi_export.exporting import GraphOptions, export_graph
from cisi_export.golden_cases import make_golden
from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.contract import Contract
from cisi_runtime.parity.compare import Comparison
from cisi_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cisi_train.network import Generator


def random_checkpoint(preset: str, folder: Path) -> Checkpoint:
    """Random weights whose output is neither grey nor saturated."""
    torch.manual_seed(11)
    generator = Generator(PRESETS[preset]).eval()
    roughen(generator)
    with torch.no_grad():
        image, mask = torch.rand(1, 3, 128, 128) * 2 - 1, torch.zeros(1, 1, 128, 128)
        spread = torch.atanh(generator(image, mask).clamp(-0.999, 0.999)).std()
        generator.decoder.to_rgb.weight.mul_(0.7 / spread)
    path = folder / f"{preset}.pt"
    save_checkpoint(path, Contract(PRESETS[preset], provenance()), generator.state_dict(), configuration={})
    return load_checkpoint(path)


def worst(comparisons: list[Comparison], natural: set[str]) -> str:
    """Largest difference and lowest PSNR of each variant, over the natural cases | over the others."""
    parts = []
    for variant, items in itertools.groupby(comparisons, key=lambda item: item.variant):
        cases = list(items)
        figures = [
            f"max {max(c.max_abs for c in part):.0e}, {min(c.hole_psnr_db for c in part):.1f} dB"
            for part in ([c for c in cases if (c.case in natural) == wanted] for wanted in (True, False))
        ]
        parts.append(f"{variant}: {' | '.join(figures)}{'' if all(c.passed for c in cases) else ' FAIL'}")
    return "; ".join(parts)


@click.command()
@click.option("--calib", type=click.Path(path_type=Path), help="Photographs, for INT8 of the shipped weights.")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="paper", show_default=True)
def main(calib: Path | None, preset: str) -> None:
    """Print a line for each graph and exit with 1 when a comparison fails."""
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = {f"{preset}, random": random_checkpoint(preset, Path(folder))}
    checkpoints["shipped"] = load_checkpoint(SHIPPED_GRAPH.with_suffix(".pt"))
    precisions = [("float32", "cpu"), ("float32", "tensorrt"), ("float16", "tensorrt")]
    sizes: list[tuple[str, tuple[int, int] | None, int | None]] = [("dynamic", None, None), ("192x128", (128, 192), 1)]
    for name, checkpoint in checkpoints.items():
        for label, size, batch in sizes:
            golden = make_golden(checkpoint, size, batch)
            natural = {case.name for case in golden.cases if case.kind == "natural"}
            for (precision, target), face in itertools.product(precisions, ("uint8", "tensor")):
                options = GraphOptions(precision, target, face, size, batch)
                parity = export_graph(checkpoint, options, golden=golden).parity
                failures += parity.failures
                compared = parity.weights or []
                figures = worst(parity.comparisons, natural)
                weights = f"{len(compared)} weights compared, {sum(not item.passed for item in compared)} bad"
                click.echo(f"{name}, {precision}, {target}, {face}, {label}: {figures}; {weights}")
    if calib is None:
        click.echo("INT8: not checked, it takes --calib FOLDER")
    else:
        calibration = CalibrationOptions(choose_photographs(calib, IMAGES))
        for target in ("cpu", "tensorrt"):
            options = GraphOptions("int8", target, "uint8")
            result = export_graph(checkpoints["shipped"], options, calibration=calibration)
            failures += result.parity.failures
            natural = {case.name for case in result.golden.cases if case.kind == "natural"}
            click.echo(f"shipped, int8, {target}, uint8, dynamic: {worst(result.parity.comparisons, natural)}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
