"""The ladder of a fresh export: the rewritten network, then its ONNX graph, each against the reference's results."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto

from cisi_export.emulate import float32_twin
from cisi_export.inference import inference_module
from cisi_export.initialisers import compare_initialisers, weights_in_graph
from cisi_export.onnx_graph import check_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend, graph_contract
from cisi_runtime.codec import decode_pixels
from cisi_runtime.golden import Golden
from cisi_runtime.parity import Comparison, Run, WeightComparison, check_backend, compare_all
from cisi_runtime.rungs import check_graph_file
from cisi_train.checkpoint import Checkpoint
from cisi_train.network import Generator


@dataclasses.dataclass(frozen=True)
class Climb:
    """What a graph was compared with: results on golden cases, and its stored weights."""

    comparisons: list[Comparison]
    weights: list[WeightComparison]

    @property
    def checks(self) -> int:
        """How many there were."""
        return len(self.comparisons) + len(self.weights)

    @property
    def failures(self) -> int:
        """How many of them failed."""
        return sum(not item.passed for item in self.comparisons) + sum(not item.passed for item in self.weights)


def climb(checkpoint: Checkpoint, model: ModelProto, golden: Golden, float_model: ModelProto | None = None) -> Climb:
    """All rungs that a machine without a GPU can run, for a graph with a contract in it.

    The rewritten network in float32 PyTorch; the graph in float32, of a float16 graph its twin (see `float32_twin`), of
    an INT8 graph `float_model`, the one that it was made of, or that one's twin; the graph itself (see `graph_rungs`);
    and its weights.
    Raises GraphError for a graph that `check_graph` refuses.
    """
    check_graph(model)
    contract = graph_contract(model.SerializeToString())
    weights = {name: value.numpy() for name, value in checkpoint.weights.items()}
    run = _runner(checkpoint.generator(), contract.target)
    comparisons = compare_all(f"rewritten network, {contract.target}", run, golden, "float32")
    if contract.precision == "float16":
        float_model = float32_twin(model, weights_in_graph(model, weights))
    if float_model is not None:
        backend = OnnxRuntimeBackend(float_model.SerializeToString(), optimise=False)
        comparisons += check_backend("ONNX float32 twin, as written", backend, golden, "float32")
    comparisons += check_graph_file(model.SerializeToString(), golden)
    return Climb(comparisons, compare_initialisers(model, weights))


def _runner(generator: Generator, target: str) -> Run:
    module = inference_module(generator, target=target, face="tensor", half=False)

    def run(image: npt.NDArray[np.uint8], hole_mask: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        mask = torch.from_numpy(hole_mask[:, None].astype(np.float32))
        with torch.no_grad():
            completed = module(torch.from_numpy(decode_pixels(image)), mask)
        return np.asarray(completed.numpy())

    return run
