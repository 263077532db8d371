"""`python -m benchmarks.soak GRAPH --calls 10000`: one `Inpainter`, four threads, mixed sizes.

Memory must stay flat and every call must give the same bytes. The test suite does this with fewer calls.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.inpainting.inpainter import Inpainter

# Height and width of the pictures, and of their holes.
_CASES = (
    *((96, 128, 20, 30), (64, 64, 64, 64), (200, 180, 60, 40), (1, 1, 1, 1), (5, 300, 5, 40), (256, 256, 100, 90)),
    *((90, 70, 1, 1), (300, 260, 200, 3)),
)


@dataclasses.dataclass(frozen=True)
class Soak:
    """What a run showed.

    calls: their number.
    different: calls that gave other bytes than the same call made alone.
    seconds: duration.
    memory_mb: resident memory after the first tenth of the calls, and after all of them.
    """

    calls: int
    different: int
    seconds: float
    memory_mb: tuple[float, float]


def soak(inpaint: Inpainter, calls: int, threads: int = 4) -> Soak:
    """Make calls from several threads at once, and compare each with the same call made alone before."""
    cases = [_case(number, *sizes) for number, sizes in enumerate(_CASES)]
    expected = [_digest(inpaint(*case)) for case in cases]
    order = np.random.default_rng(0).integers(0, len(cases), calls)

    def work(numbers: npt.NDArray[np.int64]) -> int:
        return sum(_digest(inpaint(*cases[number])) != expected[number] for number in numbers)

    start = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        tenth = calls // 10
        different = sum(pool.map(work, np.array_split(order[:tenth], threads)))
        early = _resident_mb()
        different += sum(pool.map(work, np.array_split(order[tenth:], threads)))
        late = _resident_mb()
    return Soak(calls, different, time.perf_counter() - start, (early, late))


def _case(
    number: int, height: int, width: int, below: int, right: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    rng = np.random.default_rng(number)
    hole = np.zeros((height, width), dtype=np.bool_)
    top, left = (height - below) // 2, (width - right) // 2
    hole[top : top + below, left : left + right] = True
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), hole


def _digest(pixels: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()


def _resident_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


@click.command()
@click.argument("graph", type=click.Path(path_type=Path, exists=True), default=SHIPPED_GRAPH)
@click.option("--calls", type=click.IntRange(10), default=10_000, show_default=True)
def main(graph: Path, calls: int) -> None:
    """Soak GRAPH (default: the one that ships)."""
    result = soak(Inpainter(graph, threads=1), calls)
    early, late = result.memory_mb
    click.echo(
        f"{result.calls} calls in {result.seconds:.0f} s, {result.different} with other bytes, resident {early:.0f} MB "
        f"after a tenth of them, {late:.0f} MB at the end"
    )
    sys.exit(result.different > 0)


if __name__ == "__main__":
    main()
