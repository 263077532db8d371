"""Quality of checkpoints, graphs and classical baselines on a folder of photographs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.errors import DataError
from cisi_runtime.inpainter import Inpainter
from cisi_runtime.masks import centre_hole
from cisi_runtime.metrics import Quality, hole_quality
from cisi_runtime.pictures import SUFFIXES, find_pictures, read_square
from cisi_train.checkpoint import load_checkpoint
from cisi_train.inpaint import inpaint_pixels

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]
# Picture `[H, W, 3]` and hole mask `[H, W]` to the completed picture.
Method = Callable[[UInt8Array, BoolArray], UInt8Array]

_SIZE = 256
# Pixels around the hole that OpenCV's methods look at, as in the published comparisons of data sets.
_RADIUS = 5


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over pictures of the quality over the hole."""

    method: str
    pictures: int
    l1_percent: float
    psnr_db: float
    ssim: float


def evaluate(method_name: str, method: Method, folder: Path) -> Evaluation:
    """Every picture below a folder: short side resized to 256 (Lanczos), centre crop 256x256, centre hole 128x128.

    Raises DataError for a folder without pictures, PictureError for a picture that cannot be read: means over what
    happened to be readable could not be compared.
    """
    paths = find_pictures(folder)
    if not paths:
        raise DataError(f"{folder}: no pictures found, expected a folder with {', '.join(SUFFIXES)} files")
    hole_mask = centre_hole(_SIZE, _SIZE)
    results: list[Quality] = []
    for path in tqdm(paths, desc=method_name, unit="image", mininterval=1.0):
        truth = read_square(path, _SIZE)
        results.append(hole_quality(method(truth, hole_mask), truth, hole_mask))
    means = np.mean([dataclasses.astuple(result) for result in results], axis=0)
    return Evaluation(method_name, len(results), *(float(mean) for mean in means))


def checkpoint_method(path: Path) -> Method:
    """The network of a checkpoint in PyTorch, float32."""
    generator = load_checkpoint(path).generator()
    return lambda image, hole_mask: inpaint_pixels(generator, image, hole_mask, torch.device("cpu"))


def graph_method(path: Path) -> Method:
    """An exported graph in ONNX Runtime."""
    return Inpainter(OnnxRuntimeBackend(path))


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
