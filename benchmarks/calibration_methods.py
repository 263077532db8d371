"""`python -m benchmarks.calibration_methods`: the four methods, with different numbers of photographs, side by side.

Activations are observed once. After each number of photographs every method reads its ranges off what was seen so far,
every candidate becomes INT8, and the graph is evaluated on the same photographs from another folder.
"""

from __future__ import annotations

from pathlib import Path

import click
import onnx

from cisi_calibration.defaults import METHODS
from cisi_calibration.observation import observe_histograms
from cisi_calibration.photographs import choose_photographs
from cisi_calibration.quality import QualityJudge
from cisi_calibration.quantisation import check_float_graph, quantise
from cisi_calibration.table import read_ranges
from cisi_runtime.pictures.reading import find_pictures


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Photographs to take ranges from.")
@click.option("--eval-data", type=click.Path(path_type=Path), required=True, help="Photographs to evaluate on.")
@click.option("--eval-images", type=int, default=32, show_default=True, help="How many of those.")
@click.option("--numbers", default="50,100,300,500", show_default=True, help="Of photographs to take ranges from.")
def bench(graph: Path, data: Path, eval_data: Path, eval_images: int, numbers: str) -> None:
    """Compare methods and numbers of photographs for GRAPH, a float32 graph, on CPUs."""
    model = onnx.load(graph)
    check_float_graph(model)
    counts = sorted(map(int, numbers.split(",")))
    photographs = choose_photographs(data, counts[-1])
    paths = find_pictures(eval_data)
    quality = QualityJudge(model, paths[:: max(1, len(paths) // eval_images)][:eval_images])
    histograms = None
    observed = 0
    for count in counts:
        histograms = observe_histograms(model, photographs.ranges[observed:count], histograms)
        observed = count
        for method in METHODS:
            table = read_ranges(model, histograms, method, photographs)
            loss = quality.loss(quantise(model, None, table, []))
            click.echo(f"{min(count, len(photographs.ranges)):>4} photographs, {method:<10} {loss}")


if __name__ == "__main__":
    bench()
