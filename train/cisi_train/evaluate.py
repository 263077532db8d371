"""Quality of checkpoints, graphs and classical baselines on folders of photographs."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from cisi_runtime.backends.opening import is_engine, open_backend
from cisi_runtime.backends.ort import OnnxRuntimeBackend, graph_contract, holds_float16
from cisi_runtime.errors import DataError
from cisi_runtime.inpainter import Inpainter
from cisi_runtime.masks import centre_hole, random_hole, strokes_of_area
from cisi_runtime.metrics import agreement_db, hole_quality
from cisi_runtime.pictures import SUFFIXES, find_pictures, read_square
from cisi_runtime.rungs import runnable
from cisi_runtime.self_check import check_on_this_cpu
from cisi_runtime.sheet import show_hole
from cisi_runtime.whole import WholePicture
from cisi_train.checkpoint import load_checkpoint
from cisi_train.inpaint import inpaint_pixels
from cisi_train.lpips import Lpips

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
# Picture `[H, W, 3]` and hole mask `[H, W]` to the completed picture.
Method = Callable[[UInt8Array, BoolArray], UInt8Array]

# Pixels around the hole that OpenCV's methods look at, as in the published comparisons of data sets.
_RADIUS = 5
# Area of stroke masks, as parts of the picture.
_BRACKETS = ((0.01, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5))


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over pictures. L1 in percent of 255, PSNR and SSIM over the hole; LPIPS (None: not asked for) of the whole
    completed picture; milliseconds: the median of one picture, from pixels to pixels, None for an emulation, whose
    time says nothing; against_db: PSNR over the hole against the result of another method (None: not asked for)."""

    data: str
    holes: str
    method: str
    pictures: int
    l1_percent: float
    psnr_db: float
    ssim: float
    lpips: float | None
    milliseconds: float | None
    against_db: float | None = None


def hole_sets(kind: str, size: int) -> dict[str, Callable[[int], BoolArray]]:
    """Sets of masks `[size, size]` of a kind by name, each a function of the picture's number: one set for centre holes
    and rectangles, one for each bracket of area for strokes. The masks are the same in every run."""
    if kind == "centre":
        return {"centre": lambda _: centre_hole(size, size)}
    if kind == "rectangles":
        return {kind: lambda number: random_hole(size, size, np.random.default_rng([1, number]), kind)}

    def bracket(index: int) -> Callable[[int], BoolArray]:
        return lambda number: strokes_of_area(size, size, np.random.default_rng([2, index, number]), *_BRACKETS[index])

    return {f"strokes {low:.0%}-{high:.0%}": bracket(index) for index, (low, high) in enumerate(_BRACKETS)}


def pictures_of(folder: Path) -> list[Path]:
    """Every picture below a folder. Raises DataError when there is none."""
    paths = find_pictures(folder)
    if not paths:
        raise DataError(f"{folder}: no pictures found, expected a folder with {', '.join(SUFFIXES)} files")
    return paths


def evaluate(
    name: str,
    method: Method,
    folder: Path,
    holes: str,
    hole_of: Callable[[int], BoolArray],
    lpips: Lpips | None,
    against: Method | None = None,
) -> Evaluation:
    """Every picture below a folder: short side resized to the masks' side (Lanczos), central square of it, mask
    `hole_of(number)`.

    Raises DataError for a folder without pictures, PictureError for a picture that cannot be read: means over what
    happened to be readable could not be compared.
    """
    figures: list[tuple[float, ...]] = []
    distances: list[float] = []
    agreements: list[float] = []
    label = f"{folder.parent.name}/{folder.name}"
    for number, path in enumerate(tqdm(pictures_of(folder), desc=f"{label} {name}", unit="image", mininterval=1.0)):
        hole_mask = hole_of(number)
        truth = read_square(path, len(hole_mask))
        start = time.perf_counter()
        completed = method(truth, hole_mask)
        milliseconds = 1000.0 * (time.perf_counter() - start)
        figures.append((*dataclasses.astuple(hole_quality(completed, truth, hole_mask)), milliseconds))
        if lpips is not None:
            distances.append(lpips.of_pixels(completed, truth))
        if against is not None:
            agreements.append(agreement_db(completed, against(truth, hole_mask), hole_mask))
    columns = np.array(figures).T
    l1_percent, psnr, ssim = (float(column.mean()) for column in columns[:3])
    distance = float(np.mean(distances)) if lpips is not None else None
    median = float(np.median(columns[3]))
    agreement = float(np.mean(agreements)) if against is not None else None
    return Evaluation(label, holes, name, len(figures), l1_percent, psnr, ssim, distance, median, agreement)


def sheet_rows(
    methods: Sequence[tuple[str, Method]], folder: Path, hole_of: Callable[[int], BoolArray], rows: int
) -> list[list[UInt8Array]]:
    """Rows of original, input and each method's result, for pictures spread evenly over the folder."""
    paths = pictures_of(folder)
    chosen = np.unique(np.linspace(0, len(paths) - 1, rows).round().astype(int))
    sheet: list[list[UInt8Array]] = []
    for number in chosen:
        hole_mask = hole_of(int(number))
        truth = read_square(paths[number], len(hole_mask))
        sheet.append([truth, show_hole(truth, hole_mask), *(method(truth, hole_mask) for _, method in methods)])
    return sheet


def checkpoint_method(path: Path) -> Method:
    """The network of a checkpoint in PyTorch, float32."""
    generator = load_checkpoint(path).generator()
    return lambda image, hole_mask: inpaint_pixels(generator, image, hole_mask, torch.device("cpu"))


def is_emulated(path: Path) -> bool:
    """Whether `graph_method` can only emulate a graph, because it holds float16. An engine is none."""
    return not is_engine(path) and holds_float16(graph_contract(path))


def graph_method(path: Path) -> Method:
    """An exported graph in ONNX Runtime; one that holds float16 emulated, and as it is written; an engine on its GPU.
    Raises GraphError for an INT8 graph that this CPU does not run right, and what `TensorRtBackend` raises."""
    if is_engine(path):
        return WholePicture(open_backend(path)[0])
    if is_emulated(path):
        return WholePicture(OnnxRuntimeBackend(runnable(path.read_bytes()), optimise=False))
    backend = OnnxRuntimeBackend(path)
    warning = check_on_this_cpu(backend, path)
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
    return WholePicture(backend)


def run_method(path: Path) -> Method:
    """A graph, engine or checkpoint as `cisi-run` uses it: in windows, and joined to what is around the hole. Raises as
    `graph_method`."""
    inpainter = Inpainter(path)
    warning = check_on_this_cpu(inpainter.backend, path)
    if warning is not None:
        print(f"warning: {warning}", file=sys.stderr)
    return inpainter


def mean_method(image: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
    """The hole filled with the mean colour of the known pixels."""
    completed = image.copy()
    completed[hole_mask] = np.rint(image[~hole_mask].mean(axis=0)).astype(np.uint8)
    return completed


def opencv_method(name: str) -> Method:
    """OpenCV's inpainting, "telea" or "ns" (Navier-Stokes)."""
    import cv2

    flag = {"telea": cv2.INPAINT_TELEA, "ns": cv2.INPAINT_NS}[name]

    def inpaint(image: UInt8Array, hole_mask: BoolArray) -> UInt8Array:
        bgr = np.ascontiguousarray(image[..., ::-1])
        return np.asarray(cv2.inpaint(bgr, hole_mask.astype(np.uint8) * 255, _RADIUS, flag)[..., ::-1], dtype=np.uint8)

    return inpaint
