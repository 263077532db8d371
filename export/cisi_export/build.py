"""A checkpoint and options to a verified graph."""

from __future__ import annotations

import dataclasses

from onnx import ModelProto

from cisi_calibration.calibrate import Calibration, Request, apply_table, calibrate
from cisi_export.emulate import float32_twin
from cisi_export.golden_cases import make_golden
from cisi_export.inference import inference_module
from cisi_export.initialisers import weights_in_graph
from cisi_export.ladder import Climb, climb
from cisi_export.onnx_graph import onnx_graph
from cisi_runtime.golden import Golden
from cisi_train.checkpoint import Checkpoint


@dataclasses.dataclass(frozen=True)
class Export:
    """A graph with its golden file and the comparisons that it went through; of an INT8 graph also how its layers were
    placed."""

    model: ModelProto
    golden: Golden
    climb: Climb
    calibration: Calibration | None = None


def build(
    checkpoint: Checkpoint,
    *,
    precision: str,
    target: str,
    face: str,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    request: Request | None = None,
    golden: Golden | None = None,
) -> Export:
    """Export, quantise if asked, and climb the ladder. size (height, width) and batch: None for a graph that takes any;
    request: how "int8" is to be calibrated; golden: `make_golden` of this checkpoint, size and batch, where several
    exports share it. Raises ParityError when INT8 cannot keep its budget."""
    if precision == "int8":
        assert request is not None
        model, twin, calibration = _int8(checkpoint, target, face, size, batch, request)
    else:
        model = float_graph(checkpoint, precision=precision, target=target, face=face, size=size, batch=batch)
        twin, calibration = None, None
    if golden is None:
        golden = make_golden(checkpoint, size, batch)
    return Export(model, golden, climb(checkpoint, model, golden, twin), calibration)


def _int8(
    checkpoint: Checkpoint,
    target: str,
    face: str,
    size: tuple[int, int] | None,
    batch: int | None,
    request: Request,
) -> tuple[ModelProto, ModelProto, Calibration]:
    """The INT8 graph, the float32 graph that it is of, and its calibration, which needs graphs for any size."""

    def graphs(size: tuple[int, int] | None, batch: int | None) -> tuple[ModelProto, ModelProto | None]:
        model = float_graph(checkpoint, precision="float32", target="cpu", face=face, size=size, batch=batch)
        if target == "cpu":
            return model, None
        half = float_graph(checkpoint, precision="float16", target="tensorrt", face=face, size=size, batch=batch)
        return model, half

    model, half = graphs(None, None)
    calibration = calibrate(model, half, request)
    placed = calibration.model
    if size or batch:
        model, half = graphs(size, batch)
        high = calibration.placement.high
        placed = apply_table(model, half, calibration.table, high, reduce_range=request.reduce_range)
    if half is None:
        return placed, model, calibration
    weights = {name: value.numpy() for name, value in checkpoint.weights.items()}
    return placed, float32_twin(half, weights_in_graph(half, weights)), calibration


def float_graph(
    checkpoint: Checkpoint,
    *,
    precision: str,
    target: str,
    face: str,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
) -> ModelProto:
    """The graph of a lowering as exported, "float32" or "float16"."""
    contract = dataclasses.replace(checkpoint.contract, precision=precision, target=target, face=face)
    module = inference_module(checkpoint.generator(), target=target, face=face, half=precision == "float16")
    return onnx_graph(module, contract, size, batch)
