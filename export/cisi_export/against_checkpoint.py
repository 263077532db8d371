"""`cisi-parity --ckpt`: a graph against the live network of a checkpoint, on a machine that has PyTorch."""

from __future__ import annotations

import functools
from pathlib import Path

import onnx

from cisi_export.build import float_graph
from cisi_export.golden_cases import make_golden
from cisi_export.ladder import climb
from cisi_export.walk import walk
from cisi_runtime.backends.ort import fixed_shape, graph_contract
from cisi_runtime.errors import ParityError
from cisi_runtime.golden import Golden
from cisi_runtime.parity import Comparison, WeightComparison, case_inputs
from cisi_runtime.rungs import runnable
from cisi_train.checkpoint import load_checkpoint

# Largest relative error of a layer that is not a fault, against a fresh export: the same arithmetic (measured 0), for
# INT8 what quantising explains (measured 0.12 on weights that are not trained. Margin 3).
_LIMITS = {"float32": 1e-6, "float16": 1e-6, "int8": 0.4}


def check(graph: Path, ckpt: Path) -> tuple[Golden, list[Comparison], list[WeightComparison], str | None]:
    """Climb the whole ladder with golden cases made afresh from the checkpoint, of sizes that the graph takes.

    Returns the golden cases, all comparisons, and what a walk through the layers found when one of them failed. Raises
    ParityError when graph and checkpoint hold other weights by their own words, and what reading them raises.
    """
    contract, checkpoint = graph_contract(graph), load_checkpoint(ckpt)
    if contract.weights_sha256 != checkpoint.contract.weights_sha256:
        raise ParityError(f"{graph} was not made from {ckpt}: its contract names other weights")
    model = onnx.load_from_string(graph.read_bytes())
    fixed = fixed_shape(graph)
    size = None if fixed.height is None or fixed.width is None else (fixed.height, fixed.width)
    golden = make_golden(checkpoint, size, fixed.batch)
    fresh = functools.partial(
        float_graph, checkpoint, target=contract.target, face=contract.face, size=size, batch=fixed.batch
    )
    plain = fresh(precision="float32") if contract.precision == "int8" else None
    climbed = climb(checkpoint, model, golden, plain)
    found = None
    failed = next((item.case for item in climbed.comparisons if not item.passed), None)
    if failed is not None:
        right = plain or fresh(precision=contract.precision)
        case = next(case for case in golden.cases if case.name == failed)
        inputs = case_inputs(contract, case.image, case.hole_mask)
        pair = [onnx.load_from_string(runnable(graph.SerializeToString())) for graph in (right, model)]
        found = str(walk(pair[0], pair[1], inputs, _LIMITS[contract.precision]))
    return golden, climbed.comparisons, climbed.weights, found
