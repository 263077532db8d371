"""A fresh export against the reference: the rewritten network, then its ONNX graph, then its stored weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto

from cisi_calibration.precision_plan import plan_faults
from cisi_export.emulate import float32_twin
from cisi_export.inference_graph import inference_module
from cisi_export.onnx_graph import check_model
from cisi_export.weight_check import compare_weights, weights_in_graph
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.codec import decode_pixels
from cisi_runtime.parity.checks import check_graph_parity
from cisi_runtime.parity.compare import Run, compare_all, compare_backend
from cisi_runtime.parity.golden import Golden
from cisi_runtime.parity.structure import PLAN
from cisi_runtime.parity.verdict import ParityReport, StructureCheck
from cisi_runtime.progress_on_stderr import ShowProgress, show_nothing
from cisi_train.checkpoint import Checkpoint
from cisi_train.network import Generator


def verify_export(
    checkpoint: Checkpoint,
    model: ModelProto,
    golden: Golden,
    float_model: ModelProto | None = None,
    progress: ShowProgress = show_nothing,
) -> ParityReport:
    """Every comparison that a machine without a GPU can make, for a graph with a contract in it:

    1. the rewritten network in float32 PyTorch;
    2. of a float16 graph its float32 twin (see `float32_twin`); of an INT8 graph `float_model`, the float graph that it
       was made from, or that one's twin;
    3. the graph itself, as written and optimised (see `graph_variants`);
    4. its stored weights, one by one;
    5. the types of its tensors, and its Q/DQ pairs.

    Raises GraphError for a graph that `check_model` refuses.
    """
    check_model(model)
    info = read_graph(model.SerializeToString())
    weights = {name: value.numpy() for name, value in checkpoint.weights.items()}
    run = _rewritten_network(checkpoint.generator(), info.contract.target)
    comparisons = compare_all(f"rewritten network, {info.contract.target}", run, golden, "float32", progress)
    if info.contract.precision == "float16":
        float_model = float32_twin(model, weights_in_graph(model, weights))
    if float_model is not None:
        with OnnxRuntimeBackend(float_model.SerializeToString(), optimise=False) as backend:
            comparisons += compare_backend("ONNX float32 twin, as written", backend, golden, "float32", progress)
    comparisons += check_graph_parity(info, golden, progress)
    progress("comparing: stored weights", 0, 1)
    faults = plan_faults(model)
    return ParityReport(comparisons, compare_weights(model, weights), (StructureCheck(PLAN, tuple(faults)),))


def _rewritten_network(generator: Generator, target: str) -> Run:
    module = inference_module(generator, target=target, face="tensor", as_float16=False)

    def run(image: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        mask = torch.from_numpy(hole_mask[:, None].astype(np.float32))
        with torch.no_grad():
            completed = module(torch.from_numpy(decode_pixels(image)), mask)
        return np.asarray(completed.numpy())

    return run
