"""A checkpoint behind the interface that graphs and engines have: the backend "torch" of `cisi_runtime`."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.codec import decode_pixels, encode_pixels
from cisi_runtime.errors import CudaError, GraphError
from cisi_train.checkpoint import load_checkpoint
from cisi_train.precision import computes_bf16

# PyTorch's own choice, read before anybody changes it.
_DEFAULT_THREADS = torch.get_num_threads()


class TorchBackend(Backend):
    """The network of a checkpoint in PyTorch: float32, as it was trained, for any batch and size.

    threads: 0 leaves the number to PyTorch. Another number applies, from each run on, to all of PyTorch in this
        process.
    precision: "bf16" computes convolutions and linear layers in bfloat16, norms and tanh in float32. "stored": all in
        float32.
    device: "cpu" or "cuda".

    Raises CheckpointError, GraphError for bf16 on a CPU without such instructions, CudaError without a CUDA device.
    """

    def __init__(self, path: Path, *, threads: int = 0, precision: str = "stored", device: str = "cpu") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise CudaError(f"device cuda: PyTorch {torch.__version__} finds no CUDA device here, expected one")
        if precision == "bf16" and device == "cpu" and not computes_bf16(device):
            raise GraphError(
                "precision bf16: this CPU has no bfloat16 instructions, expected one with them, or float32"
            )
        checkpoint = load_checkpoint(path)
        self._threads, self._lock = threads or _DEFAULT_THREADS, threading.Lock()
        self._device = torch.device(device)
        self._generator = checkpoint.generator().to(self._device).eval().requires_grad_(False)
        contract = dataclasses.replace(checkpoint.contract, face="uint8")
        super().__init__("torch CUDA" if device == "cuda" else "torch", contract, FixedShape(), precision)

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        hole = torch.from_numpy((hole_mask >= self.contract.mask_threshold)[:, None].astype(np.float32))
        torch.set_num_threads(self._threads)
        as_bf16 = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), self._exact(), as_bf16:
            pixels = torch.from_numpy(decode_pixels(image)).to(self._device)
            completed = self._generator.inpaint(pixels, hole.to(self._device))
        return encode_pixels(completed.float().cpu().numpy())

    @contextlib.contextmanager
    def _exact(self) -> Iterator[None]:
        """Without it cuDNN rounds the factors of float32 convolutions to 10 bits of mantissa. Its flags are those of
        the process, so one run at a time."""
        if self._device.type == "cpu":
            yield
            return
        with self._lock, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield

    def _close(self) -> None:
        del self._generator
