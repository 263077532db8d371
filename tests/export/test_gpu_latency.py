"""The benchmark for GPUs, as far as it runs without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.gpu_latency import main

from tests.support.commands import run_in_process
from tests.support.shared import TIMEOUT_S

pytestmark = pytest.mark.slow


def test_rehearsal(tiny_checkpoint_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.jsonl"
    program = [sys.executable, "-m", "benchmarks.gpu_latency", "--ckpt", str(tiny_checkpoint_path), "--rehearse"]
    program += ["--sizes", "64", "--batches", "1", "--rounds", "3", "--out", str(out)]
    result = subprocess.run(program, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert result.returncode == 0, result.stderr
    about, *rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert about["rehearsal"] is True
    measured = {(row["method"], row["pixels_on"]) for row in rows if "p50_ms" in row}
    torch_methods = ["PyTorch eager float32", "PyTorch half, channels last", "PyTorch half, torch.compile"]
    both = {(name, place) for name in torch_methods for place in ("host", "device")}
    assert measured == both | {("ONNX Runtime CPU, float32", "host")}
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] for row in rows if "p50_ms" in row)
    # One network: bfloat16 moves random weights by 5 levels (measured). Margin 3.
    assert max(row["levels_from_the_first"] for row in rows if "p50_ms" in row) <= 15
    assert [row["method"] for row in rows if "calls" in row] == [*torch_methods, "ONNX Runtime CPU, float32"]


def test_a_gpu_is_asked_for(tiny_checkpoint_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("tests what happens without a GPU; this machine has one")
    result = run_in_process(main, "--ckpt", tiny_checkpoint_path)
    assert result.returncode == 2
    assert "PyTorch finds no CUDA device here, expected one, or --rehearse" in result.stderr
