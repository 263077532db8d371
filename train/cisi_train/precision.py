"""Whether a device computes in bfloat16, or only pretends to."""

from __future__ import annotations

import torch


def computes_bf16(device: str) -> bool:
    """Whether "cpu" or "cuda" has instructions for bfloat16. Without them PyTorch converts back and forth, and a step
    takes longer than in float32."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported()
