"""What an INT8 graph costs in quality: against the float32 graph, and against the photographs themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from cisi_calibration.photographs import picture_and_hole
from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.metrics import agreement_db, hole_quality
from cisi_runtime.parity.checks import cpu_runnable

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# What INT8 may lose against the photographs, in dB of hole PSNR and in SSIM, whatever the budget is.
MAX_PSNR_LOSS_DB, MAX_SSIM_LOSS = 0.1, 0.005


class Metric(Protocol):
    """A perceptual distance of two pictures uint8 `[H, W, 3]`; 0 for equal ones."""

    def of_pixels(self, a: UInt8Array, b: UInt8Array) -> float:
        """The distance."""
        ...


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a graph loses, as means over pictures.

    hole_psnr_db: PSNR over the hole against the float32 graph's result.
    lowest_psnr_db: the same, of the worst picture.
    lpips: LPIPS of the picture against the float32 graph's result; None where not measured.
    psnr_loss_db: how much lower the hole's PSNR against the photograph is than that of float32; negative: higher.
    ssim_loss: likewise for SSIM.
    """

    hole_psnr_db: float
    lowest_psnr_db: float
    lpips: float | None
    psnr_loss_db: float
    ssim_loss: float

    def within(self, budget_db: float) -> bool:
        """Whether it keeps the budget, and the bounds against the photographs."""
        is_near = self.psnr_loss_db <= MAX_PSNR_LOSS_DB and self.ssim_loss <= MAX_SSIM_LOSS
        return self.hole_psnr_db >= budget_db and is_near

    def __str__(self) -> str:
        lpips = "" if self.lpips is None else f", LPIPS {self.lpips:.4f}"
        return (
            f"hole PSNR {self.hole_psnr_db:.1f} dB against float32 (worst picture {self.lowest_psnr_db:.1f}){lpips}; "
            f"against the photographs {-self.psnr_loss_db:+.3f} dB, SSIM {-self.ssim_loss:+.4f}"
        )


class QualityJudge:
    """Compares INT8 graphs with what the float32 graph makes of some photographs with holes."""

    def __init__(self, float_model: ModelProto, pictures: Sequence[Path], metric: Metric | None = None) -> None:
        self.metric = metric
        self._cases = [picture_and_hole(path) for path in pictures]
        with OnnxRuntimeBackend(float_model.SerializeToString()) as backend:
            self._expected = [_completed(backend, *case) for case in self._cases]
        self._quality = [
            hole_quality(completed, image, hole)
            for completed, (image, hole) in zip(self._expected, self._cases, strict=True)
        ]

    def loss(self, model: ModelProto) -> Loss:
        """What a graph with a contract loses. One for CPUs runs as ONNX Runtime deploys it; one for TensorRT as it is
        written, with float16 emulated."""
        info = read_graph(model.SerializeToString())
        psnrs, distances, losses = [], [], []
        with OnnxRuntimeBackend(cpu_runnable(info), optimise=info.contract.target == "cpu") as backend:
            for (image, hole), expected, float_quality in zip(self._cases, self._expected, self._quality, strict=True):
                completed = _completed(backend, image, hole)
                psnrs.append(agreement_db(completed, expected, hole))
                quality = hole_quality(completed, image, hole)
                losses.append((float_quality.psnr_db - quality.psnr_db, float_quality.ssim - quality.ssim))
                if self.metric is not None:
                    distances.append(self.metric.of_pixels(completed, expected))
        # A hole too small for a window has no SSIM.
        psnr_loss, ssim_loss = np.nanmean(np.array(losses), axis=0)
        return Loss(
            hole_psnr_db=float(np.mean(psnrs)),
            lowest_psnr_db=min(psnrs),
            lpips=float(np.mean(distances)) if distances else None,
            psnr_loss_db=float(psnr_loss),
            ssim_loss=float(ssim_loss),
        )


def _completed(backend: Backend, image: UInt8Array, hole: BoolArray) -> UInt8Array:
    pixels: UInt8Array = backend.contract.io.pixels(backend.run_pixels(image[None], hole[None]))[0]
    return pixels
