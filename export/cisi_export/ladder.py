"""The ladder of a fresh export: the rewritten network, then its ONNX graph, each against the reference's results."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto

from cisi_export.emulate import emulate_float16
from cisi_export.inference import inference_module
from cisi_export.onnx_graph import set_contract
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.codec import decode_pixels
from cisi_runtime.contract import Contract
from cisi_runtime.golden import Golden
from cisi_runtime.parity import Comparison, Run, check_backend, compare_all
from cisi_train.network import Generator


def climb(generator: Generator, contract: Contract, model: ModelProto, golden: Golden) -> list[Comparison]:
    """All rungs that a machine without a GPU can run, for a graph as described by its contract.

    The rewritten network in float32; the graph in ONNX Runtime with its optimisations off, the oracle, and on. A
    float16 graph is emulated, because ONNX Runtime's CPU kernels would run it in float32.
    """
    rungs = compare_all(
        f"rewritten network, {contract.target}, float32",
        _runner(generator, contract.target),
        golden,
        "float32",
    )
    is_half = contract.precision == "float16"
    if is_half:
        model = emulate_float16(model)
        set_contract(model, dataclasses.replace(contract, precision="float32"))  # what the emulation runs in
    serialised = model.SerializeToString()
    name = f"ONNX {contract.precision}{' emulated' if is_half else ''}"
    for optimise in (False, True):
        backend = OnnxRuntimeBackend(serialised, optimise=optimise)
        rung = f"{name}, {'optimised' if optimise else 'as written'}"
        rungs += check_backend(rung, backend, golden, contract.precision)
    return rungs


def _runner(generator: Generator, target: str) -> Run:
    module = inference_module(generator, target=target, face="tensor", half=False)

    def run(image: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        mask = torch.from_numpy(hole_mask[:, None].astype(np.float32))
        with torch.no_grad():
            completed = module(torch.from_numpy(decode_pixels(image)), mask)
        return np.asarray(completed.numpy())

    return run
