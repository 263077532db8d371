"""A checkpoint and options to a verified graph."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from onnx import ModelProto

from cisi_calibration.observe import observe_ranges
from cisi_calibration.quantise import quantise, tensors_to_observe
from cisi_export.golden_cases import make_golden
from cisi_export.inference import inference_module
from cisi_export.ladder import climb
from cisi_export.onnx_graph import check_graph, onnx_graph, set_contract
from cisi_runtime.backends.base import graph_inputs
from cisi_runtime.golden import Golden
from cisi_runtime.parity import Comparison
from cisi_train.checkpoint import Checkpoint


@dataclasses.dataclass(frozen=True)
class Export:
    """A graph with its golden file and the comparisons that it went through."""

    model: ModelProto
    golden: Golden
    comparisons: list[Comparison]

    @property
    def passed(self) -> bool:
        """The verdict over all rungs and cases."""
        return all(comparison.passed for comparison in self.comparisons)


def build(
    checkpoint: Checkpoint, *, precision: str, target: str, face: str, pictures: list[Path] | None = None
) -> Export:
    """Export, quantise if asked, and climb the ladder. `pictures`: the photographs that "int8" calibrates on."""
    generator = checkpoint.generator()
    written = "float32" if precision == "int8" else precision
    contract = dataclasses.replace(checkpoint.contract, precision=written, target=target, face=face)
    module = inference_module(generator, target=target, face=face, half=precision == "float16")
    model = onnx_graph(module, contract)
    if precision == "int8":
        assert pictures is not None
        table = observe_ranges(
            model, tensors_to_observe(model), pictures, lambda image, hole: graph_inputs(contract, image, hole)
        )
        contract = dataclasses.replace(contract, precision="int8")
        model = quantise(model, table)
        set_contract(model, contract)
        check_graph(model)
    golden = make_golden(checkpoint)
    return Export(model, golden, climb(generator, contract, model, golden))
