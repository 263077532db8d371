from pathlib import Path

import pytest
import torch

from cisi_runtime.backends.registry import BackendOptions, open_backend
from cisi_runtime.errors import CudaError, GraphError
from cisi_runtime.parity.checks import check_backend_parity
from cisi_runtime.parity.golden import golden_path, load_golden
from cisi_train.torch_backend import TorchBackend
from tests.support.bf16 import needs_bf16


def test_float32_is_the_reference(tiny_checkpoint_path: Path, tiny_graph: Path) -> None:
    report = check_backend_parity(tiny_checkpoint_path, load_golden(golden_path(tiny_graph)), BackendOptions("torch"))
    assert report.passed
    assert {item.variant for item in report.comparisons} == {"torch, float32"}


@needs_bf16
def test_bf16_keeps_its_tolerance_and_is_not_float32(tiny_checkpoint_path: Path, tiny_graph: Path) -> None:
    options = BackendOptions("torch", precision="bf16")
    report = check_backend_parity(tiny_checkpoint_path, load_golden(golden_path(tiny_graph)), options)
    assert report.passed
    assert {item.variant for item in report.comparisons} == {"torch, bf16"}
    assert min(item.hole_psnr_db for item in report.comparisons) < 50.0


def test_bf16_on_a_cpu_without_it_is_refused(tiny_checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.raises(GraphError, match="precision bf16: this CPU has no bfloat16 instructions"):
        TorchBackend(tiny_checkpoint_path, precision="bf16")


def test_a_gpu_that_is_not_there_is_not_replaced(tiny_checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(CudaError, match="device cuda: PyTorch .* finds no CUDA device here"):
        open_backend(tiny_checkpoint_path, BackendOptions(device="cuda"))
