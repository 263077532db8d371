"""Quality of checkpoints, graphs and classical baselines on folders of photographs."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.registry import BackendOptions, is_engine, open_backend
from cisi_runtime.console import tell_more, warn
from cisi_runtime.errors import DataError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.model import open_model
from cisi_runtime.inpainting.single_pass import SinglePassInpainter
from cisi_runtime.metrics import agreement_db, hole_quality, sharpness
from cisi_runtime.parity.checks import cpu_runnable
from cisi_runtime.pictures.masks import centre_hole, dilated, random_hole, strokes_of_area
from cisi_runtime.pictures.picture import SUFFIXES
from cisi_runtime.pictures.reading import find_pictures
from cisi_runtime.pictures.resizing import read_square
from cisi_runtime.pictures.sheet import show_hole
from cisi_runtime.progress_on_stderr import counted
from cisi_train.scene_categories import of_categories

if TYPE_CHECKING:  # graphs and baselines are evaluated without PyTorch
    from cisi_train.lpips import Lpips

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
# Picture `[H, W, 3]` and hole mask `[H, W]` to the completed picture.
Method = Callable[[UInt8Array, BoolArray], UInt8Array]

# Radius of OpenCV's methods in pixels, as in the published comparisons of these data sets.
_RADIUS = 5
# Pixels around a hole whose sharpness it is compared with.
_AROUND = 32
# Added to the name of a graph that holds float16 and is only emulated here. Its time says nothing.
EMULATED = " (emulated)"
# Area of stroke masks, as fractions of the picture.
_BRACKETS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5))


@dataclasses.dataclass(frozen=True)
class HoleSet:
    """Masks that are the same in every run. mask: of a picture's number, bool `[size, size]`."""

    name: str
    mask: Callable[[int], BoolArray]


@dataclasses.dataclass(frozen=True)
class Metrics:
    """What is measured beside L1, PSNR and SSIM. lpips: the metric. against: another method to compare results with."""

    lpips: Lpips | None = None
    against: Method | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over the pictures of a folder.

    data, holes, method: names of folder, hole set and method.
    pictures: their number.
    l1_percent: over the hole, in percent of 255.
    psnr_db: over the hole; that of an exact fill counts as if one value differed by a level.
    ssim: over the hole, of the pictures whose hole has a window; NaN where none has.
    sharpness: mean gradient in the hole over that within 32 pixels of it; None where no picture has one.
    lpips: of the whole completed picture; None if not asked for.
    milliseconds: median for one picture, from pixels to pixels; None for an emulation, whose time says nothing.
    against_db: PSNR over the hole against the result of another method; None if not asked for.
    """

    data: str
    holes: str
    method: str
    pictures: int
    l1_percent: float
    psnr_db: float
    ssim: float
    sharpness: float | None
    lpips: float | None
    milliseconds: float | None
    against_db: float | None = None


def hole_sets(kind: str, size: int) -> list[HoleSet]:
    """Sets of masks `[size, size]`: one for "centre" and "rectangles", one for each bracket of area for "strokes"."""
    if kind == "centre":
        return [HoleSet("centre", lambda _: centre_hole(size, size))]
    if kind == "rectangles":
        return [HoleSet(kind, lambda number: random_hole(size, size, np.random.default_rng([1, number]), kind))]

    def bracket(index: int) -> Callable[[int], BoolArray]:
        return lambda number: strokes_of_area(size, size, np.random.default_rng([2, index, number]), *_BRACKETS[index])

    return [HoleSet(f"strokes {low:.0%}-{high:.0%}", bracket(index)) for index, (low, high) in enumerate(_BRACKETS)]


def random_draws(size: int, draws: int) -> list[HoleSet]:
    """As the set "rectangles" of `hole_sets`, drawn several times."""

    def draw(seed: int) -> Callable[[int], BoolArray]:
        return lambda number: random_hole(size, size, np.random.default_rng([1, number, seed]), "rectangles")

    return [HoleSet(f"rectangles, draw {seed}", draw(seed)) for seed in range(1, draws + 1)]


def pictures_of(folder: Path, categories: Sequence[str] = ()) -> list[Path]:
    """Every picture below a folder, or those of some scene categories. Raises DataError when there is none."""
    paths = find_pictures(folder)
    if categories:
        return of_categories(folder, paths, categories)
    if not paths:
        raise DataError(f"{folder}: no pictures found, expected a folder with {', '.join(SUFFIXES)} files")
    return paths


def evaluate(
    name: str, method: Method, folder: Path, holes: HoleSet, metrics: Metrics, categories: Sequence[str] = ()
) -> Evaluation:
    """Evaluate a method on the pictures of `pictures_of`: short side resized to that of the masks, central square.

    Raises DataError for a folder without pictures, PictureError for a picture that cannot be read: means over whatever
    happened to be readable could not be compared.
    """
    figures: list[tuple[float, ...]] = []
    distances: list[float] = []
    agreements: list[float] = []
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100  a link keeps its name
    label = f"{absolute.parent.name}/{absolute.name}"
    for number, path in enumerate(counted(pictures_of(folder, categories), f"{label} {name}", "image")):
        hole_mask = holes.mask(number)
        truth = read_square(path, len(hole_mask))
        start = time.perf_counter()
        completed = method(truth, hole_mask)
        milliseconds = 1000.0 * (time.perf_counter() - start)
        around = dilated(hole_mask, _AROUND) & ~hole_mask
        quality = hole_quality(completed, truth, hole_mask)
        # Exact fills must not make the mean infinite.
        quality = dataclasses.replace(quality, psnr_db=agreement_db(completed, truth, hole_mask))
        figures.append((*dataclasses.astuple(quality), sharpness(completed, hole_mask, around), milliseconds))
        told = f"{path}: {name}, {holes.name}: {quality.l1_percent:.2f} %, {quality.psnr_db:.2f} dB, "
        told += f"SSIM {quality.ssim:.3f}"
        if metrics.lpips is not None:
            distances.append(metrics.lpips.of_pixels(completed, truth))
            told += f", LPIPS {distances[-1]:.4f}"
        tell_more(told)
        if metrics.against is not None:
            agreements.append(agreement_db(completed, metrics.against(truth, hole_mask), hole_mask))
    columns = np.array(figures).T
    l1_percent, psnr = (float(column.mean()) for column in columns[:2])
    ssims, sharp, milliseconds_of_each = columns[2:]
    return Evaluation(
        data=label,
        holes=holes.name,
        method=name,
        pictures=len(figures),
        l1_percent=l1_percent,
        psnr_db=psnr,
        ssim=_mean_of_finite(ssims),
        sharpness=_mean_of_finite(sharp) if np.isfinite(sharp).any() else None,
        lpips=float(np.mean(distances)) if distances else None,
        milliseconds=None if name.endswith(EMULATED) else float(np.median(milliseconds_of_each)),
        against_db=float(np.mean(agreements)) if agreements else None,
    )


def _mean_of_finite(values: npt.NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def sheet_rows(
    methods: Sequence[tuple[str, Method]], folder: Path, holes: HoleSet, rows: int, categories: Sequence[str] = ()
) -> list[list[UInt8Array]]:
    """Rows of original, input and each method's result, for pictures spread evenly over the folder."""
    paths = pictures_of(folder, categories)
    numbers = np.unique(np.linspace(0, len(paths) - 1, rows).round().astype(int))
    sheet: list[list[UInt8Array]] = []
    for number in numbers:
        hole_mask = holes.mask(int(number))
        truth = read_square(paths[number], len(hole_mask))
        sheet.append([truth, show_hole(truth, hole_mask), *(method(truth, hole_mask) for _, method in methods)])
    return sheet


def checkpoint_method(path: Path, device: str = "auto") -> Method:
    """The network of a checkpoint in PyTorch, float32. Raises what `open_backend` raises."""
    return SinglePassInpainter(open_backend(path, BackendOptions(device=device))[0])


def is_emulated(path: Path) -> bool:
    """Whether `graph_method` can only emulate a graph on a CPU, because it holds float16. False for an engine."""
    return not is_engine(path) and read_graph(path).contract.holds_float16


def graph_method(path: Path, device: str = "auto") -> Method:
    """A graph in ONNX Runtime, or an engine on its GPU. A graph that holds float16 is emulated, as it is written.

    Raises GraphError for an INT8 graph that this CPU does not run correctly, and what `TensorRtBackend` raises.
    """
    if is_engine(path):
        return SinglePassInpainter(open_backend(path, BackendOptions(device=device))[0])
    info = read_graph(path)
    if info.contract.holds_float16 and device != "cuda":
        return SinglePassInpainter(OnnxRuntimeBackend(cpu_runnable(info), optimise=False))
    opened = open_model(path, BackendOptions(device=device))
    if opened.warning is not None:
        warn(opened.warning)
    return SinglePassInpainter(opened.backend)


def run_methods(path: Path, device: str = "auto") -> tuple[Method, Method]:
    """A graph, engine or checkpoint as `cisi-run --no-detail` uses it, and as `cisi-run` does. Raises as
    `graph_method`."""
    inpainter = Inpainter(path, device=device)
    if inpainter.warning is not None:
        warn(inpainter.warning)
    return Inpainter(inpainter.backend, detail=False), inpainter


def baseline_method(name: str) -> Method:
    """ "mean": the mean colour of the known pixels. "telea", "ns" (Navier-Stokes): OpenCV's inpainting."""
    return _mean_colour if name == "mean" else _opencv_method(name)


def _mean_colour(image: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
    completed = image.copy()
    completed[hole_mask] = np.rint(image[~hole_mask].mean(axis=0)).astype(np.uint8)
    return completed


def _opencv_method(name: str) -> Method:
    import cv2

    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[name]

    def inpaint(image: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
        bgr = np.ascontiguousarray(image[..., ::-1])
        return np.asarray(cv2.inpaint(bgr, hole_mask.astype(np.uint8) * 255, _RADIUS, flag)[..., ::-1], dtype=np.uint8)

    return inpaint
