"""Whether this CPU has bfloat16."""

import pytest
import torch

needs_bf16 = pytest.mark.skipif(
    not torch.cpu._is_avx512_bf16_supported(), reason="needs a CPU with bfloat16 (lscpu: avx512_bf16)"
)
