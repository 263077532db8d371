"""A checkpoint and options to a verified graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from onnx import ModelProto

from cisi_calibration.observe import observe_ranges
from cisi_calibration.quantise import quantise, tensors_to_observe
from cisi_export.golden_cases import make_golden
from cisi_export.inference import inference_module
from cisi_export.ladder import Climb, climb
from cisi_export.metadata import set_contract
from cisi_export.onnx_graph import check_graph, onnx_graph
from cisi_runtime.backends.base import graph_inputs
from cisi_runtime.backends.ort import graph_contract
from cisi_runtime.golden import Golden
from cisi_train.checkpoint import Checkpoint


@dataclasses.dataclass(frozen=True)
class Export:
    """A graph with its golden file and the comparisons that it went through."""

    model: ModelProto
    golden: Golden
    climb: Climb


def build(
    checkpoint: Checkpoint,
    *,
    precision: str,
    target: str,
    face: str,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    pictures: list[Path] | None = None,
    golden: Golden | None = None,
) -> Export:
    """Export, quantise if asked, and climb the ladder. size (height, width) and batch: None for a graph that takes any;
    pictures: the photographs that "int8" calibrates on; golden: `make_golden` of this checkpoint, size and batch, where
    several exports share it."""
    model = float_graph(checkpoint, precision=precision, target=target, face=face, size=size, batch=batch)
    float_model = None
    if precision == "int8":
        assert pictures is not None
        contract = graph_contract(model.SerializeToString())
        table = observe_ranges(
            model, tensors_to_observe(model), pictures, lambda image, hole: graph_inputs(contract, image, hole)
        )
        float_model, model = model, quantise(model, table)
        set_contract(model, dataclasses.replace(contract, precision="int8"))
        check_graph(model)
    if golden is None:
        golden = make_golden(checkpoint, size, batch)
    return Export(model, golden, climb(checkpoint, model, golden, float_model))


def float_graph(
    checkpoint: Checkpoint,
    *,
    precision: str,
    target: str,
    face: str,
    size: tuple[int, int] | None = None,
    batch: int | None = None,
) -> ModelProto:
    """The graph as exported, float32 where `precision` is "int8": what INT8 is made of."""
    written = "float32" if precision == "int8" else precision
    contract = dataclasses.replace(checkpoint.contract, precision=written, target=target, face=face)
    module = inference_module(checkpoint.generator(), target=target, face=face, half=precision == "float16")
    return onnx_graph(module, contract, size, batch)
