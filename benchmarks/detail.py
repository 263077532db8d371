"""`python -m benchmarks.detail`: what detail costs, and which holes gain by it.

All with the float32 graph but for cisi-run. Always: detail beside the network on a centre hole; whole processes of
cisi-run on 12 megapixels; memory and time of large holes and of thousands of dots; how well stripes go on. With --data
and --lpips: LPIPS with detail over LPIPS without, for lines and dots of several widths.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from benchmarks.throughput import run_fresh, write_mosaic
from cisi_runtime import Inpainter
from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.bench.measure import interleaved
from cisi_runtime.inpainting.detail import add_detail
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.resizing import read_square
from cisi_train.evaluate import pictures_of
from cisi_train.lpips import load_lpips

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

PHOTOS = Path(__file__).parent.parent / "tests" / "photos"
_SIZE = 256
_LARGE = """
import sys, time, numpy as np
from PIL import Image
from cisi_runtime import Inpainter
from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.bench.measure import peak_mb
kind, detail = sys.argv[1], sys.argv[2] == "detail"
image = np.asarray(Image.effect_noise((4000, 3000), 40).convert("RGB")).copy()
hole = np.zeros((3000, 4000), dtype=bool)
if kind == "dots":
    places = np.random.default_rng(0).integers(20, (2980, 3980), (11000, 2))
    for y, x in places:
        hole[y - 3 : y + 4, x - 3 : x + 4] = True
else:
    rim = int(kind)
    hole[rim:-rim, rim:-rim] = True
inpaint = Inpainter(SHIPPED_GRAPH, detail=detail)
start = time.perf_counter()
inpaint(image, hole)
print(f"{time.perf_counter() - start:.2f} s, {peak_mb():.0f} MB")
"""


def beside_the_network(rounds: int) -> str:
    """Medians of the stages of one 256x256 picture with the centre hole."""
    truth, hole = read_square(PHOTOS / "coast.jpg", _SIZE), centre_hole(_SIZE, _SIZE)
    timers: list[StageTimer] = []
    with Inpainter(SHIPPED_GRAPH) as inpaint:

        def run() -> None:
            timers.append(StageTimer())
            inpaint(truth, hole, timers[-1])

        interleaved([run], rounds)
    detail, network = (statistics.median(t.milliseconds[stage] for t in timers[2:]) for stage in ("detail", "run"))
    figures = f"detail {detail:.0f} ms, float32 network {network:.0f} ms, ratio {detail / network:.2f}"
    return f"centre hole, {_SIZE}x{_SIZE}: {figures}"


def whole_processes(rounds: int) -> str:
    """A photograph of 12 megapixels with a hole of 300x300, from file to file, with and without detail in turns."""
    runs: dict[str, list[tuple[float, int]]] = {"detail": [], "no detail": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mosaic(folder, "12", 4000, 3000, seed=0)
        job = [folder / "photos" / "12.jpg", "--mask", folder / "masks" / "12.png", "-o", folder / "out.jpg"]
        for _ in range(rounds):
            runs["detail"].append(run_fresh(*job))
            runs["no detail"].append(run_fresh(*job, "--no-detail"))
    seconds = {kind: statistics.median(run[0] for run in kind_runs) for kind, kind_runs in runs.items()}
    parts = [f"{kind} {seconds[kind]:.2f} s, {max(run[1] for run in runs[kind])} MB" for kind in runs]
    return f"12 megapixels, whole process: {'; '.join(parts)}; ratio {seconds['detail'] / seconds['no detail']:.2f}"


def large_holes() -> list[str]:
    """12 megapixels in memory: all but a rim is hole, or 11,000 dots of 7x7 pixels are."""
    lines = []
    for kind, title in (("400", "all but a rim of 400"), ("160", "all but a rim of 160"), ("dots", "11,000 dots")):
        measured = [
            subprocess.run([sys.executable, "-c", _LARGE, kind, how], capture_output=True, text=True, check=True).stdout
            for how in ("detail", "none")
        ]
        lines.append(f"12 megapixels, {title}: {measured[0].strip()}; without detail {measured[1].strip()}")
    return lines


def stripes() -> str:
    """Correlation of continued stripes with the true ones, across and down, by their period in pixels."""
    hole, parts = centre_hole(_SIZE, _SIZE), []
    for period in (8, 10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 40, 48):
        row = np.where(np.arange(_SIZE) % period < period // 2, 90, 160).astype(np.uint8)
        image = np.dstack([np.tile(row, (_SIZE, 1))] * 3)
        found = []
        for picture in (image, image.swapaxes(0, 1).copy()):
            completed, _ = add_detail(picture, np.full_like(picture, 125), hole, hole)
            found.append(np.corrcoef(completed[hole][:, 0], picture[hole][:, 0])[0, 1])
        parts.append(f"{period}: {found[0]:.2f} {found[1]:.2f}")
    return f"stripes, period: correlation across, down: {', '.join(parts)}"


def widths(data: list[Path], lpips: Path) -> list[str]:
    """Six lines or dots in each tenth photograph of the folders."""
    metric, lines = load_lpips(lpips), []
    paths = [path for folder in data for path in pictures_of(folder)[::10]]
    truths = [read_square(path, _SIZE) for path in paths]
    with Inpainter(SHIPPED_GRAPH) as inpaint:
        smooth = Inpainter(inpaint.backend, detail=False)
        for kind in ("lines", "dots"):
            parts = []
            for width in (2, 3, 4, 6, 8, 10, 12, 16, 24):
                rng = np.random.default_rng(width)
                holes = [_holes(rng, kind, width) for _ in truths]
                distance = [
                    sum(metric.of_pixels(method(t, h), t) for t, h in zip(truths, holes, strict=True))
                    for method in (inpaint, smooth)
                ]
                parts.append(f"{width}: {distance[0] / distance[1]:.3f}")
            lines.append(f"{kind}, width in {_SIZE}: LPIPS with over without detail: {', '.join(parts)}")
    return lines


def _holes(rng: np.random.Generator, kind: str, width: int) -> BoolArray:
    canvas = Image.new("1", (_SIZE, _SIZE))
    draw = ImageDraw.Draw(canvas)
    for _ in range(6):
        x, y, to_x, to_y = rng.uniform(20, _SIZE - 20, 4)
        if kind == "lines":
            draw.line([(x, y), (to_x, to_y)], fill=1, width=width)
        else:
            draw.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=1)
    return np.array(canvas, dtype=np.bool_)


@click.command()
@click.option("--data", type=click.Path(path_type=Path), multiple=True, help="Folders of photographs.")
@click.option("--lpips", type=click.Path(path_type=Path), help="File of LPIPS weights.")
@click.option("--rounds", type=click.IntRange(1), default=7, show_default=True)
def main(data: tuple[Path, ...], lpips: Path | None, rounds: int) -> None:
    """Measure detail with the graphs that ship."""
    if bool(data) != bool(lpips):
        raise click.UsageError("expected --data and --lpips together, or neither")
    click.echo(beside_the_network(3 * rounds))
    click.echo(whole_processes(rounds))
    click.echo("\n".join(large_holes()))
    click.echo(stripes())
    if lpips is not None:
        click.echo("\n".join(widths(list(data), lpips)))


if __name__ == "__main__":
    main()
