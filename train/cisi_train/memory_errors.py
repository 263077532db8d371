"""What PyTorch raises where memory is short, as errors for people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from cisi_runtime.errors import CisiError


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """Raises CisiError where memory was short in the block, or a process that reads pictures was killed. PyTorch raises
    RuntimeError for either."""
    try:
        yield
    except RuntimeError as error:
        if str(error).startswith("DataLoader worker"):
            raise CisiError(
                "a process that reads pictures was killed, probably because memory was short: expected fewer --workers"
            ) from error
        if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
            raise CisiError("not enough memory for a step, expected a smaller --batch or --size") from error
        raise
