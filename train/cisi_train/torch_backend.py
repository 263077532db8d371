"""A checkpoint behind the interface that graphs and engines have: the backend "torch" of `cisi_runtime`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.codec import decode_pixels, encode_pixels
from cisi_runtime.errors import GraphError
from cisi_train.checkpoint import load_checkpoint

# PyTorch's own choice, read before anybody changes it.
_DEFAULT_THREADS = torch.get_num_threads()


class TorchBackend(Backend):
    """The network of a checkpoint in PyTorch on the CPU: float32, as it was trained, for any batch and size.

    threads: 0 leaves the number to PyTorch. Another number applies, from each run on, to all of PyTorch in this
        process.
    precision: "bf16" computes convolutions and linear layers in bfloat16, norms and tanh in float32. "stored": all in
        float32.

    Raises CheckpointError, GraphError for bf16 on a CPU without such instructions.
    """

    def __init__(self, path: Path, *, threads: int = 0, precision: str = "stored") -> None:
        if precision == "bf16" and not torch.cpu._is_avx512_bf16_supported():
            raise GraphError(
                "precision bf16: this CPU has no bfloat16 instructions, expected one with them, or float32"
            )
        checkpoint = load_checkpoint(path)
        self._threads = threads or _DEFAULT_THREADS
        self._generator = checkpoint.generator().eval().requires_grad_(False)
        contract = dataclasses.replace(checkpoint.contract, face="uint8")
        super().__init__("torch", contract, FixedShape(), precision)

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        hole = torch.from_numpy((hole_mask >= self.contract.mask_threshold)[:, None].astype(np.float32))
        torch.set_num_threads(self._threads)
        as_bf16 = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), as_bf16:
            completed = self._generator.inpaint(torch.from_numpy(decode_pixels(image)), hole)
        return encode_pixels(completed.float().numpy())

    def _close(self) -> None:
        del self._generator
