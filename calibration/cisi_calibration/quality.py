"""What an INT8 graph costs in quality: against the float32 graph, and against the photographs themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from cisi_calibration.metadata import contract_of
from cisi_calibration.pictures import picture_and_hole
from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.codec import encode_pixels
from cisi_runtime.metrics import agreement_db, hole_quality
from cisi_runtime.rungs import runnable

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# What INT8 may lose against the photographs, in dB of hole PSNR and in SSIM, whatever the budget is.
MOST_PSNR_LOST_DB, MOST_SSIM_LOST = 0.1, 0.005


class Metric(Protocol):
    """A perceptual distance of two pictures uint8 `[H, W, 3]`, 0 for equal ones."""

    def of_pixels(self, a: UInt8Array, b: UInt8Array) -> float:
        """See the class."""
        ...


@dataclasses.dataclass(frozen=True)
class Loss:
    """Means over pictures. hole_psnr_db: against the float32 graph's result, over the hole; lowest_psnr_db: of the
    worst picture; lpips: likewise against it, over the picture, None where not measured; psnr_lost_db, ssim_lost: how
    much further from the photograph than float32, over the hole (negative: nearer)."""

    hole_psnr_db: float
    lowest_psnr_db: float
    lpips: float | None
    psnr_lost_db: float
    ssim_lost: float

    def within(self, budget_db: float) -> bool:
        """Whether it keeps the budget, and the bounds against the photographs."""
        near = self.psnr_lost_db <= MOST_PSNR_LOST_DB and self.ssim_lost <= MOST_SSIM_LOST
        return self.hole_psnr_db >= budget_db and near

    def __str__(self) -> str:
        lpips = "" if self.lpips is None else f", LPIPS {self.lpips:.4f}"
        return (
            f"hole PSNR {self.hole_psnr_db:.1f} dB against float32 (worst picture {self.lowest_psnr_db:.1f}){lpips}; "
            f"against the photographs {-self.psnr_lost_db:+.3f} dB, SSIM {-self.ssim_lost:+.4f}"
        )


class Judge:
    """Knows what the float32 graph makes of some photographs with holes, and compares INT8 graphs with that."""

    def __init__(self, float_model: ModelProto, pictures: Sequence[Path], metric: Metric | None = None) -> None:
        self.metric = metric
        self._cases = [picture_and_hole(path) for path in pictures]
        backend = OnnxRuntimeBackend(float_model.SerializeToString())
        self._expected = [_completed(backend, *case) for case in self._cases]
        self._quality = [
            hole_quality(completed, image, hole)
            for completed, (image, hole) in zip(self._expected, self._cases, strict=True)
        ]

    def loss(self, model: ModelProto) -> Loss:
        """Of a graph with a contract: for CPUs as ONNX Runtime deploys it; for TensorRT as it is written, with float16
        emulated."""
        serialised = model.SerializeToString()
        is_deployed = contract_of(model).target == "cpu"
        backend = OnnxRuntimeBackend(runnable(serialised), optimise=is_deployed)
        psnrs, distances, lost = [], [], []
        for (image, hole), expected, quality in zip(self._cases, self._expected, self._quality, strict=True):
            completed = _completed(backend, image, hole)
            psnrs.append(agreement_db(completed, expected, hole))
            own = hole_quality(completed, image, hole)
            lost.append((quality.psnr_db - own.psnr_db, quality.ssim - own.ssim))
            if self.metric is not None:
                distances.append(self.metric.of_pixels(completed, expected))
        # A hole too small for a window has no SSIM.
        psnr_lost, ssim_lost = np.nanmean(np.array(lost), axis=0)
        return Loss(
            float(np.mean(psnrs)),
            min(psnrs),
            float(np.mean(distances)) if distances else None,
            float(psnr_lost),
            float(ssim_lost),
        )


def _completed(backend: Backend, image: UInt8Array, hole: BoolArray) -> UInt8Array:
    result = backend.run_pixels(image[None], hole[None])
    pixels = result if result.dtype == np.uint8 else encode_pixels(result)
    return np.asarray(pixels[0], dtype=np.uint8)
