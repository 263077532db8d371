"""Several processes that train as one, each on its part of the batch (started by torchrun); or only this one."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn

from cisi_runtime.errors import CisiError


class Processes:
    """The processes of a run. Under torchrun, which sets WORLD_SIZE, they join on construction: by NCCL between GPUs,
    one for each process, otherwise by Gloo. Raises CisiError where the environment is not torchrun's."""

    def __init__(self, device: str) -> None:
        self.count = _number("WORLD_SIZE", 1)
        self.rank = _number("RANK", 0)
        needed = ["RANK", "MASTER_ADDR", "MASTER_PORT", *(["LOCAL_RANK"] if device == "cuda" else [])]
        missing = [name for name in needed if name not in os.environ]
        if self.count > 1 and missing:
            raise CisiError(
                f"WORLD_SIZE is {self.count} in the environment and {missing[0]} is not set: expected torchrun, or no "
                "WORLD_SIZE"
            )
        self.device = torch.device(device)
        if device == "cuda" and self.count > 1:
            self.device = torch.device("cuda", _number("LOCAL_RANK", 0))
            torch.cuda.set_device(self.device)
        if self.count > 1:
            dist.init_process_group("nccl" if device == "cuda" else "gloo")

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes, in one message. Losses are means over images, so that
        is the gradient of the whole batch. All processes must hold gradients of the same parameters."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.count == 1 or not gradients:
            return
        message = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(message)
        message /= self.count
        for gradient, part in zip(gradients, torch.split(message, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agree(self, *, stop: bool, progress: float) -> tuple[bool, float]:
        """Whether any process wants to stop, and the first one's progress, so that all act alike at the same step."""
        if self.count == 1:
            return stop, progress
        message = torch.tensor([float(stop), progress if self.is_first else 0.0], dtype=torch.float64)
        message = message.to(self.device)
        dist.all_reduce(message)
        stops, first_progress = message.tolist()
        return stops > 0, first_progress

    def close(self) -> None:
        """Leave the group."""
        if self.count > 1 and dist.is_initialized():
            dist.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise CisiError(f"{name} is {text!r} in the environment, expected a number, as torchrun sets it")
    return int(text)
