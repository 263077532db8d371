"""`cisi-parity --ckpt`: a graph against the live network of a checkpoint, on a machine that has PyTorch."""

from __future__ import annotations

import functools
from pathlib import Path

import onnx

from cisi_export.compare_layers import compare_layers
from cisi_export.exporting import float_graph
from cisi_export.golden_cases import make_golden
from cisi_export.verification import verify_export
from cisi_runtime.backends.graph import GraphInfo
from cisi_runtime.errors import ParityError
from cisi_runtime.parity.checks import cpu_runnable
from cisi_runtime.parity.compare import ParityReport, case_inputs
from cisi_runtime.parity.golden import Golden
from cisi_train.checkpoint import load_checkpoint

# Largest relative error of a layer that is not a fault, against a fresh export. Float: the same arithmetic, measured 0.
# INT8: what quantising explains, measured 0.12 on untrained weights. Margin 3.
_MAX_LAYER_ERROR = {"float32": 1e-6, "float16": 1e-6, "int8": 0.4}


def verify_against_checkpoint(graph: GraphInfo, ckpt: Path) -> tuple[Golden, ParityReport, str | None]:
    """Everything that `verify_export` compares, on golden cases made afresh, of sizes that the graph takes.

    Returns the golden cases, the report, and, after a failure, in words the first layer that differs from a fresh
    export. Raises ParityError when graph and checkpoint themselves name different weights, and what reading them
    raises.
    """
    contract, checkpoint = graph.contract, load_checkpoint(ckpt)
    if contract.weights_sha256 != checkpoint.contract.weights_sha256:
        raise ParityError(f"{graph.label} was not made from {ckpt}: its contract names other weights")
    model = onnx.load_from_string(graph.serialised())
    batch, height, width = graph.fixed.sides
    size = None if height is None or width is None else (height, width)
    golden = make_golden(checkpoint, size, batch)
    fresh_graph = functools.partial(
        float_graph, checkpoint, target=contract.target, face=contract.face, size=size, batch=batch
    )
    float_model = fresh_graph(precision="float32") if contract.precision == "int8" else None
    report = verify_export(checkpoint, model, golden, float_model)
    failed = next((item.case for item in report.comparisons if not item.passed), None)
    if failed is None:
        return golden, report, None
    right = float_model or fresh_graph(precision=contract.precision)
    case = next(case for case in golden.cases if case.name == failed)
    inputs = case_inputs(contract, case.image, case.hole_mask)
    models = [onnx.load_from_string(cpu_runnable(item.SerializeToString())) for item in (right, model)]
    return golden, report, str(compare_layers(models[0], models[1], inputs, _MAX_LAYER_ERROR[contract.precision]))
