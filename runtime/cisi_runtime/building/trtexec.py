"""The command line with which NVIDIA's own program builds the same engine."""

from __future__ import annotations

import shlex
from pathlib import Path

from cisi_runtime.contract import Contract
from cisi_runtime.engines.options import BuildOptions, Size


def trtexec_line(graph: Path, out: Path, options: BuildOptions, contract: Contract, *, is_free: bool) -> str:
    """For TensorRT's `trtexec`, or TensorRT-RTX's `tensorrt_rtx`. is_free: the graph takes several sizes."""
    is_rtx = options.flavour == "tensorrt-rtx"
    words = ["tensorrt_rtx" if is_rtx else "trtexec", f"--onnx={graph}", f"--saveEngine={out}", "--skipInference"]
    words.append("--profilingVerbosity=detailed")
    if is_rtx:
        words.append("--computeCapabilities=" + ",".join(name.replace(".", "") for name in options.capabilities))
    else:
        words += ["--stronglyTyped", f"--builderOptimizationLevel={options.level}"]
    if not options.tf32:
        words.append("--noTF32")
    if options.workspace_mib is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace_mib}M")
    if is_free:
        for name, size in zip(("min", "opt", "max"), options.profile.sizes, strict=True):
            words.append(f"--{name}Shapes={_shapes(contract, size)}")
    return shlex.join(words)


def _shapes(contract: Contract, size: Size) -> str:
    shapes = contract.io.input_shapes(size.sides)
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
