"""`python -m benchmarks.soak GRAPH --calls 100000`: one `Inpainter`, four threads, mixed sizes.

Memory must stay flat and every call must give the same bytes; the exit status is 1 otherwise. The test suite does this
with fewer calls.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.inpainting.inpainter import Inpainter

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# Height and width of the pictures, and of their holes.
_CASES = (
    *((96, 128, 20, 30), (64, 64, 64, 64), (200, 180, 60, 40), (1, 1, 1, 1), (5, 300, 5, 40), (256, 256, 100, 90)),
    *((90, 70, 1, 1), (300, 260, 200, 3)),
)


# Allocators of threads and the arena of ONNX Runtime grow until each size has been met in each thread.
_SETTLED_CALLS = 1000
# What memory may grow by after that, in MB.
_MAX_GROWTH_MB = 20


@dataclasses.dataclass(frozen=True)
class Point:
    """calls: made so far. memory_mb: resident memory between two calls, in millions of bytes."""

    calls: int
    memory_mb: float


@dataclasses.dataclass(frozen=True)
class Soak:
    """What a run showed.

    calls: their number.
    different: calls that gave other bytes than the same call made alone.
    seconds: duration.
    curve: memory once it has settled, then after each tenth of the calls.
    """

    calls: int
    different: int
    seconds: float
    curve: tuple[Point, ...]

    @property
    def growth_mb(self) -> float:
        """By how much memory exceeds, at its highest, what it was when it had settled."""
        return max(point.memory_mb for point in self.curve) - self.curve[0].memory_mb


def soak(
    inpaint: Callable[[UInt8Array, BoolArray], UInt8Array],
    calls: int,
    threads: int = 4,
    settled_calls: int = _SETTLED_CALLS,
    shrink: int = 1,
    tell: Callable[[Point], None] = lambda _: None,
) -> Soak:
    """Make calls from several threads at once, and compare each with the same call made alone before.

    settled_calls: after which memory is to stay flat; fewer than `calls`. shrink: divides each side of pictures and
    holes. tell: gets each point of the curve at once.
    """
    cases = [_case(number, *(-(-side // shrink) for side in sides)) for number, sides in enumerate(_CASES)]
    expected = [_digest(inpaint(*case)) for case in cases]
    order = np.random.default_rng(0).integers(0, len(cases), calls)

    def work(numbers: npt.NDArray[np.int64]) -> int:
        return sum(_digest(inpaint(*cases[number])) != expected[number] for number in numbers)

    tenths = [calls * tenth // 10 for tenth in range(1, 11)]
    ends = [settled_calls, *(end for end in tenths if end > settled_calls)]
    start, different, done, curve = time.perf_counter(), 0, 0, []
    with ThreadPoolExecutor(threads) as pool:
        for end in ends:
            different += sum(pool.map(work, np.array_split(order[done:end], threads)))
            done = end
            curve.append(Point(done, _resident_mb()))
            tell(curve[-1])
    return Soak(calls, different, time.perf_counter() - start, tuple(curve))


def _case(number: int, height: int, width: int, below: int, right: int) -> tuple[UInt8Array, BoolArray]:
    rng = np.random.default_rng(number)
    hole = np.zeros((height, width), dtype=np.bool_)
    top, left = (height - below) // 2, (width - right) // 2
    hole[top : top + below, left : left + right] = True
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), hole


def _digest(pixels: UInt8Array) -> bytes:
    return hashlib.sha256(pixels.tobytes()).digest()


def _resident_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


@click.command()
@click.argument("graph", type=click.Path(path_type=Path, exists=True), default=SHIPPED_GRAPH)
@click.option("--calls", type=click.IntRange(_SETTLED_CALLS, min_open=True), default=10_000, show_default=True)
@click.option("--shrink", type=click.IntRange(min=1), default=1, show_default=True, help="Divide all sides by this.")
def main(graph: Path, calls: int, shrink: int) -> None:
    """Soak GRAPH (default: the one that ships)."""
    with Inpainter(graph, threads=1) as inpaint:
        result = soak(inpaint, calls, shrink=shrink, tell=_print)
    is_flat = result.growth_mb <= _MAX_GROWTH_MB
    verdict = "pass" if is_flat and not result.different else "FAIL"
    click.echo(
        f"{result.calls} calls in {result.seconds:.0f} s, {result.different} with other bytes; memory grew by "
        f"{result.growth_mb:.1f} MB after {_SETTLED_CALLS} calls, {_MAX_GROWTH_MB} allowed: {verdict}"
    )
    sys.exit(verdict == "FAIL")


def _print(point: Point) -> None:
    click.echo(f"{point.calls:7} calls  {point.memory_mb:6.1f} MB")


if __name__ == "__main__":
    main()
