"""`python -m benchmarks.scaling --plot scaling.png`: how time and memory grow with pixels, holes and batches.

The network alone from 128x128 to 1024x1024 and for batches of 1 to 8; a photograph of 12 megapixels with square holes
of 100 to 1,600 pixels. Peak memory is that of a fresh process each.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path

import click
import matplotlib as mpl

mpl.use("Agg")  # draws files without a window
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter

from benchmarks.cpu_graphs import cpu_name
from cisi_runtime.backends.registry import SHIPPED_GRAPH, SHIPPED_INT8_GRAPH

_SIDES = (128, 256, 384, 512, 768, 1024)
_BATCHES = (1, 2, 4, 8)
_HOLES = (100, 200, 400, 800, 1600)
_SETTINGS = (
    (SHIPPED_GRAPH, "onnxruntime"),
    (SHIPPED_INT8_GRAPH, "onnxruntime"),
    (SHIPPED_GRAPH, "openvino"),
    (SHIPPED_INT8_GRAPH, "openvino"),
)
# One process for each point: what ran before would be in its memory.
_POINT = """
import json, sys, time
import numpy as np
from cisi_runtime.bench.measure import peak_mb
kind, graph, backend, size, rounds = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
rng = np.random.default_rng(0)
if kind == "photograph":
    from cisi_runtime import Inpainter
    image = rng.integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    hole = np.zeros((3000, 4000), dtype=bool)
    hole[700 : 700 + size, 1000 : 1000 + size] = True
    inpaint = Inpainter(graph, backend)
    call = lambda: inpaint(image, hole)
else:
    from pathlib import Path
    from cisi_runtime.backends.registry import BackendOptions, open_backend
    backend, _ = open_backend(Path(graph), BackendOptions(backend))
    batch, side = (1, size) if kind == "side" else (size, 256)
    image = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    hole = np.zeros((batch, side, side), dtype=bool)
    hole[:, side // 4 : -side // 4, side // 4 : -side // 4] = True
    call = lambda: backend.run_pixels(image, hole)
call()
times = []
for _ in range(rounds):
    start = time.perf_counter()
    call()
    times.append(1000.0 * (time.perf_counter() - start))
print(json.dumps({"times": times, "mb": peak_mb()}))
"""


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a plot: a graph in a backend. milliseconds, mb: by what is on the x axis."""

    name: str
    milliseconds: dict[int, float]
    mb: dict[int, float]


def curves(kind: str, points: tuple[int, ...], rounds: int) -> list[Curve]:
    """All settings at all points. kind: "side", "batch" or "photograph"."""
    lines = []
    for graph, backend in _SETTINGS:
        found: dict[int, dict[str, list[float]]] = {}
        for point in points:
            arguments = [kind, str(graph), backend, str(point), str(rounds)]
            output = subprocess.run(
                [sys.executable, "-c", _POINT, *arguments], capture_output=True, text=True, check=True
            ).stdout
            found[point] = json.loads(output)
        name = f"{'INT8' if graph == SHIPPED_INT8_GRAPH else 'float32'}, {backend}"
        medians = {point: statistics.median(values["times"]) for point, values in found.items()}
        lines.append(Curve(name, medians, {point: values["mb"] for point, values in found.items()}))  # type: ignore[misc]
    return lines


def table(title: str, lines: list[Curve], unit: str) -> str:
    """Milliseconds and MB, a column for each point."""
    points = list(lines[0].milliseconds)
    rows = [title, f"{'':<22}" + "".join(f"{f'{point} {unit}':>14}" for point in points)]
    for line in lines:
        cells = (f"{line.milliseconds[point]:6.0f} ms {line.mb[point]:4.0f}" for point in points)
        rows.append(f"{line.name:<22}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(rows)


def plot(groups: list[tuple[str, list[Curve]]], path: Path) -> None:
    """A panel for each group, milliseconds on logarithmic axes."""
    figure, panels = plt.subplots(1, len(groups), figsize=(4.2 * len(groups), 3.6), layout="constrained")
    for axes, (label, lines) in zip(panels, groups, strict=True):
        for line in lines:
            axes.loglog(list(line.milliseconds), list(line.milliseconds.values()), marker="o", label=line.name)
        points = list(lines[0].milliseconds)
        axes.set_xticks(points, [str(point) for point in points])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel(label)
        axes.set_ylabel("milliseconds")
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


@click.command()
@click.option("--plot", "path", type=click.Path(path_type=Path), help="Draw the curves.")
@click.option("--rounds", type=int, default=7, show_default=True)
def main(path: Path | None, rounds: int) -> None:
    """Print three tables: milliseconds (medians) and peak memory in MB."""
    groups = [
        ("side of the picture", curves("side", _SIDES, rounds)),
        ("pictures of 256x256 in a batch", curves("batch", _BATCHES, rounds)),
        ("side of the hole, 12 megapixels", curves("photograph", _HOLES, rounds)),
    ]
    click.echo(f"shipped weights, all threads; ms and peak MB of a process; {cpu_name()}")
    for (title, lines), unit in zip(groups, ("px", "", "px"), strict=True):
        click.echo(table(title, lines, unit))
    if path is not None:
        plot(groups, path)


if __name__ == "__main__":
    main()
