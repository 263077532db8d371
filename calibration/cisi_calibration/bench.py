"""`python -m cisi_calibration.bench`: the four methods, and the number of photographs, side by side.

Everything is observed once; after each number of photographs the ranges of each method are read off what has been seen
until then, every candidate becomes INT8, and the graph is judged on the same photographs, of another folder.
"""

from __future__ import annotations

from pathlib import Path

import click
import onnx

from cisi_calibration.calibrate import apply_table, check_graph
from cisi_calibration.defaults import METHODS
from cisi_calibration.pictures import choose_photographs
from cisi_calibration.quality import Judge
from cisi_calibration.table import observe_histograms, read_ranges
from cisi_runtime.pictures import find_pictures


@click.command()
@click.argument("graph", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Photographs to take ranges from.")
@click.option("--judge", type=click.Path(path_type=Path), required=True, help="Photographs to judge by.")
@click.option("--judged", type=int, default=32, show_default=True, help="How many of those.")
@click.option("--numbers", default="50,100,300,500", show_default=True, help="Of photographs to take ranges from.")
def bench(graph: Path, data: Path, judge: Path, judged: int, numbers: str) -> None:
    """Compare methods and numbers of photographs for GRAPH, a float32 graph, on CPUs."""
    model = onnx.load(graph)
    check_graph(model)
    counts = sorted(map(int, numbers.split(",")))
    photographs = choose_photographs(data, counts[-1])
    paths = find_pictures(judge)
    judging = Judge(model, paths[:: max(1, len(paths) // judged)][:judged])
    histograms = None
    done = 0
    for count in counts:
        histograms = observe_histograms(model, photographs.ranges[done:count], histograms)
        done = count
        for method in METHODS:
            table = read_ranges(model, histograms, method, photographs)
            loss = judging.loss(apply_table(model, None, table, []))
            click.echo(f"{min(count, len(photographs.ranges)):>4} photographs, {method:<10} {loss}")


if __name__ == "__main__":
    bench()
