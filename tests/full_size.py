"""`make parity`: the whole ladder at full size, by one command; the test suite climbs it at tiny size.

Preset `paper` with random weights that hide nothing, and the shipped weights; float32 and float16, both lowerings, both
faces, of one size and of any. With `--calib FOLDER` also INT8 of the shipped weights (random ones have no ranges to
keep).
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from pathlib import Path

import click
import torch

from cisi_calibration.calibrate import Request
from cisi_calibration.defaults import IMAGES
from cisi_calibration.pictures import choose_photographs
from cisi_export.build import build
from cisi_export.golden_cases import make_golden
from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract
from cisi_runtime.inpainter import SHIPPED_GRAPH
from cisi_runtime.parity import Comparison
from cisi_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cisi_train.network import Generator
from tests.conftest import provenance, roughen


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
    """Largest difference and lowest PSNR of each rung, over the cases that look like photographs | over the others."""
    parts = []
    for rung, items in itertools.groupby(comparisons, key=lambda item: item.rung):
        cases = list(items)
        figures = [
            f"max {max(c.max_abs for c in part):.0e}, {min(c.hole_psnr_db for c in part):.1f} dB"
            for part in ([c for c in cases if (c.case in natural) == wanted] for wanted in (True, False))
        ]
        parts.append(f"{rung}: {' | '.join(figures)}{'' if all(c.passed for c in cases) else ' FAIL'}")
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
                result = build(
                    checkpoint, precision=precision, target=target, face=face, size=size, batch=batch, golden=golden
                )
                failures += result.climb.failures
                bad = sum(not item.passed for item in result.climb.weights)
                figures = worst(result.climb.comparisons, natural)
                weights = f"{len(result.climb.weights)} weights compared, {bad} bad"
                click.echo(f"{name}, {precision}, {target}, {face}, {label}: {figures}; {weights}")
    if calib is None:
        click.echo("INT8: not checked, it takes --calib FOLDER")
    else:
        request = Request(choose_photographs(calib, IMAGES))
        for target in ("cpu", "tensorrt"):
            result = build(checkpoints["shipped"], precision="int8", target=target, face="uint8", request=request)
            failures += result.climb.failures
            natural = {case.name for case in result.golden.cases if case.kind == "natural"}
            click.echo(f"shipped, int8, {target}, uint8, dynamic: {worst(result.climb.comparisons, natural)}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
