"""Faults planted into exported files, by families, and which checks see each of them.

`python -m tests.support.graph_faults CKPT` prints the table for the four graphs of a checkpoint. `test_graph_faults.py`
requires what `must` says.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import click
from onnx import ModelProto, TensorProto, helper

from cisi_calibration.convolutions import PIXEL_READERS, TO_RGB, candidates
from cisi_calibration.model_contract import exporter_versions, sealed_bytes
from cisi_calibration.precision_plan import serialised_plan_faults
from cisi_calibration.quantisation import quantise
from cisi_calibration.table import Range, RangeTable
from cisi_export.compare_structure import structure_differences
from cisi_export.exporting import float_graph
from cisi_export.golden_cases import make_golden
from cisi_export.weight_check import compare_weights
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.errors import CisiError
from cisi_runtime.export_record import ExportRecord, is_sealed, seal
from cisi_runtime.parity.checks import check_graph_parity
from cisi_runtime.parity.compare import Comparison, compare_backend
from cisi_runtime.parity.golden import Golden
from cisi_train.checkpoint import Checkpoint, load_checkpoint
from tests.support.graph_edits import (
    adain_in_float16,
    by_shape,
    bypass,
    coarse_weight,
    contract,
    darker_where,
    decode_by_127,
    dilation,
    epsilon,
    first_scale,
    in_float16,
    lost_output_pair,
    lost_pair,
    mask_channel,
    metadata,
    no_hole,
    no_zero_point,
    pair_apart,
    polynomial_tanh,
    quantised_bias,
    said_twice,
    scale_stored,
    style_of_all,
    surplus_pair,
    swapped_scales,
    swapped_sides,
    through,
    weight_axis,
    weight_scales,
    weight_zero_point,
    zero_point,
)

# What can see a fault: loading refuses the file; its seal; types and scales of every node (needs onnx); its numbers on
# golden cases; every node against a fresh export, and stored weights (both need the checkpoint).
REFUSED, SEAL, PLAN, NUMBERS, NODES, WEIGHTS = "refused", "seal", "plan", "numbers", "nodes", "weights"
FLOAT32, FLOAT16, INT8_CPU, INT8_TENSORRT = "float32", "float16", "int8 cpu", "int8 tensorrt"
GRAPHS = (FLOAT32, FLOAT16, INT8_CPU, INT8_TENSORRT)


class Graphs:
    """The four graphs of a checkpoint and its golden cases, made when they are first asked for.

    table: INT8 ranges; made up by default, because their values do not matter to what is checked here.
    """

    def __init__(self, checkpoint: Checkpoint, table: RangeTable | None = None) -> None:
        self.checkpoint = checkpoint
        self._table = table
        self._graphs: dict[str, ModelProto] = {}
        self._golden: Golden | None = None

    @property
    def golden(self) -> Golden:
        self._golden = self._golden or make_golden(self.checkpoint)
        return self._golden

    @property
    def table(self) -> RangeTable:
        if self._table is None:
            ends = [f"{name} {end}" for name in candidates(self[FLOAT32], "cpu") for end in ("input", "output")]
            ranges = {tensor: Range((-2.0 - 0.01 * n, 3.0 + 0.02 * n), 3.0 + 0.02 * n) for n, tensor in enumerate(ends)}
            del ranges[f"{TO_RGB} output"]
            # Both read the same tensor.
            ranges |= dict.fromkeys((f"{name} input" for name in PIXEL_READERS), Range((-1.0, 1.0), 1.0))
            weights = self.checkpoint.contract.weights_sha256
            self._table = RangeTable(weights, "made for tests", 0, "0" * 64, ranges)
        return self._table

    def __getitem__(self, name: str) -> ModelProto:
        if name not in self._graphs:
            self._graphs[name] = self._make(name)
        return self._graphs[name]

    def _make(self, name: str) -> ModelProto:
        if name in (FLOAT32, FLOAT16):
            target = "cpu" if name == FLOAT32 else "tensorrt"
            return float_graph(self.checkpoint, precision=name, target=target, face="uint8")
        fp16_graph = self[FLOAT16] if name == INT8_TENSORRT else None
        return quantise(self[FLOAT32], fp16_graph, self.table, ())

    def sealed(self, name: str) -> bytes:
        """The file of a sound graph."""
        record = ExportRecord(exporter_versions(), "0" * 64)
        return sealed_bytes(self[name], record, self.table.to_json() if name.startswith("int8") else None)


@dataclasses.dataclass(frozen=True)
class GraphFault:
    """A fault in a file.

    family: what kind of mistake it stands for.
    plant: changes a model in place.
    graphs: those that it can be planted into.
    must: checks that must see it, besides its seal.
    """

    family: str
    name: str
    plant: Callable[[ModelProto], None]
    graphs: tuple[str, ...] = GRAPHS
    must: frozenset[str] = frozenset((NODES,))

    def seen_by(self, graphs: Graphs, name: str, checks: frozenset[str]) -> set[str]:
        """Those of some checks that see the fault in a graph."""
        sound = ModelProto()
        sound.ParseFromString(graphs.sealed(name))
        model = copy.deepcopy(sound)
        self.plant(model)
        assert model.SerializeToString(deterministic=True) != sound.SerializeToString(deterministic=True), self.name
        data = model.SerializeToString(deterministic=True)
        try:
            read_graph(data)
        except CisiError:
            return {REFUSED}
        seen = set()
        if SEAL in checks and not is_sealed(data):
            seen.add(SEAL)
        if PLAN in checks and serialised_plan_faults(data):
            seen.add(PLAN)
        if NODES in checks and structure_differences(graphs[name], model):
            seen.add(NODES)
        if WEIGHTS in checks:
            weights = {key: value.numpy() for key, value in graphs.checkpoint.weights.items()}
            if not all(item.passed for item in compare_weights(model, weights)):
                seen.add(WEIGHTS)
        if NUMBERS in checks and not all(item.passed for item in compared(data, graphs)):
            seen.add(NUMBERS)
        return seen


def compared(data: bytes, graphs: Graphs) -> list[Comparison]:
    """On golden cases; a float32 graph as optimised alone."""
    info = read_graph(data)
    if info.contract.precision != "float32":
        return check_graph_parity(info, graphs.golden)
    with OnnxRuntimeBackend(data) as backend:
        return compare_backend("optimised", backend, graphs.golden, "float32")


_NUMBERS = frozenset((NODES, NUMBERS))
_REFUSED = frozenset((REFUSED,))
_INT8 = (INT8_CPU, INT8_TENSORRT)
_PLAN = frozenset((NODES, PLAN))
_HALF = (FLOAT16, INT8_TENSORRT)
# A rearrangement and a ReLU that change nothing.
_SAME = helper.make_node("DepthToSpace", ["c_0"], ["c_1"], blocksize=1)
_RELU = helper.make_node("Relu", ["c_0"], ["c_1"])
GRAPH_FAULTS = (
    GraphFault("shape", "height above 192", darker_where(1, "Greater", 192.5), must=_NUMBERS),
    GraphFault("shape", "height above 512", darker_where(1, "Greater", 512.5), must=_NUMBERS),
    GraphFault("shape", "width above 500", darker_where(2, "Greater", 500.5), must=_NUMBERS),
    GraphFault("shape", "width up to 127", darker_where(2, "LessOrEqual", 127.5), must=_NUMBERS),
    GraphFault("shape", "height above 192, by Shape", by_shape, must=_REFUSED),
    GraphFault("batch", "three and more share a style", style_of_all, must=_NUMBERS),
    GraphFault("batch", "three and more are darker", darker_where(0, "Greater", 2.5), must=_NUMBERS),
    GraphFault("hole", "none: the picture is darker", no_hole, must=_NUMBERS),
    GraphFault("epsilon", "1e-4 in the first norm", epsilon(1e-4, 1), must=_NUMBERS),
    GraphFault("epsilon", "1.2e-5 in all norms", epsilon(1.2e-5)),
    GraphFault("epsilon", "1e-3 in all norms", epsilon(1e-3)),
    GraphFault("activation", "tanh off by 1e-4", polynomial_tanh, must=_NUMBERS),
    GraphFault("activation", "no clip", bypass("Clip")),
    GraphFault("activation", "no rounding: truncated", bypass("Round")),
    GraphFault("network", "dilation 8 is 7 in one direction", dilation),
    GraphFault("network", "mask channel at 0.9", mask_channel),
    GraphFault("network", "pixels decoded by 1/127", decode_by_127),
    GraphFault("contract", "padding rule", contract(padding="edge")),
    GraphFault("contract", "another preset's width", contract(architecture__dim=16)),
    GraphFault("contract", "dilations", contract(architecture__dilations=(2, 4, 8, 15))),
    GraphFault("contract", "provenance", contract(provenance__data_licence="public domain")),
    GraphFault("contract", "target", contract(target="tensorrt"), (FLOAT32, INT8_CPU), _REFUSED),
    GraphFault("contract", "float32 that says INT8", contract(precision="int8"), (FLOAT32,), _REFUSED),
    GraphFault("contract", "INT8 that says float32", contract(precision="float32"), _INT8, _REFUSED),
    GraphFault("contract", "float16 that says float32", contract(precision="float32"), (FLOAT16,), _REFUSED),
    GraphFault("scales", "an activation's x 0.5", scale_stored(first_scale, 0.5), _INT8, _PLAN),
    GraphFault("scales", "an activation's x 1.02", scale_stored(first_scale, 1.02), _INT8, _PLAN),
    GraphFault("scales", "Q and DQ 2 % apart", pair_apart, _INT8, _PLAN),
    GraphFault("scales", "two swapped", swapped_scales, _INT8, _PLAN),
    GraphFault("scales", "a zero point off by one", zero_point, _INT8, _PLAN),
    GraphFault("scales", "a weight's axis", weight_axis, _INT8, _PLAN),
    GraphFault("scales", "a weight's zero points", weight_zero_point, _INT8, _PLAN),
    GraphFault("scales", "a weight in 7 bits of 8", coarse_weight, _INT8, frozenset((NODES,))),
    GraphFault("scales", "an input that is not quantised", lost_pair, _INT8, _PLAN),
    GraphFault("scales", "256 levels before the tanh", surplus_pair, _INT8, _PLAN),
    GraphFault("scales", "no zero points", no_zero_point, _INT8, _PLAN),
    GraphFault("types", "tanh of float16", through("Tanh", TensorProto.FLOAT16), _HALF, _PLAN),
    GraphFault("types", "square root of float16", through("Sqrt", TensorProto.FLOAT16), _HALF, _PLAN),
    GraphFault("types", "a norm's mean in float16", in_float16("ReduceMean"), _HALF, _PLAN),
    GraphFault("types", "a norm's square root in float16", in_float16("Sqrt"), _HALF, _PLAN),
    GraphFault("types", "style pooling in float16", in_float16("ReduceSum"), _HALF, _PLAN),
    GraphFault("types", "style MLP in float16", in_float16("Gemm"), _HALF, _PLAN),
    GraphFault("types", "codec in float16", in_float16("Round"), _HALF, _PLAN),
    GraphFault("types", "tanh in float16", in_float16("Tanh"), _HALF, _PLAN),
    GraphFault("types", "AdaIN's shift in float16", adain_in_float16, _HALF, _PLAN),
    GraphFault("types", "tanh of float16, rearranged", through("Tanh", TensorProto.FLOAT16, _SAME), _HALF, _PLAN),
    GraphFault("types", "square root of float16, ReLU", through("Sqrt", TensorProto.FLOAT16, _RELU), _HALF, _PLAN),
    GraphFault(
        "types", "float16 where there is none", through("Tanh", TensorProto.FLOAT16), (FLOAT32, INT8_CPU), _REFUSED
    ),
    GraphFault("types", "tanh of bfloat16", through("Tanh", TensorProto.BFLOAT16), must=_REFUSED),
    GraphFault("types", "clip of whole numbers", through("Clip", TensorProto.INT32), must=_REFUSED),
    GraphFault("types", "clip of bytes", through("Clip", TensorProto.UINT8), must=_REFUSED),
    GraphFault("scales", "an output that is not quantised", lost_output_pair, _INT8, _PLAN),
    GraphFault("scales", "a weight's is NaN", weight_scales(float("nan")), _INT8, _PLAN),
    GraphFault("scales", "a weight's is negative", weight_scales(-0.01), _INT8, _PLAN),
    GraphFault("scales", "a bias in INT32", quantised_bias, _INT8, _PLAN),
    GraphFault("said", "height and width swapped", swapped_sides, (FLOAT32, FLOAT16)),
    GraphFault("said", "a tensor twice", said_twice, (FLOAT32, FLOAT16, INT8_CPU)),
    GraphFault("said", "metadata of another tool", metadata("quantised_by", "another tool")),
)
ALL_CHECKS = frozenset((SEAL, PLAN, NUMBERS, NODES, WEIGHTS))


def resealed(model: ModelProto) -> bytes:
    """A changed model with a new seal, as an exporter at fault would write it."""
    entry = next(item for item in model.metadata_props if item.key == "cisi_sha256")
    entry.value = "0" * 64
    return seal(model.SerializeToString(deterministic=True))


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--ranges", type=click.Path(path_type=Path), help="Range table; default: made up.")
def main(checkpoint: Path, ranges: Path | None) -> None:
    """Print the table for CHECKPOINT and exit with 1 when a fault was not seen by what must see it."""
    from cisi_calibration.table import load_table

    graphs = Graphs(load_checkpoint(checkpoint), None if ranges is None else load_table(ranges))
    missed = 0
    columns = (REFUSED, SEAL, PLAN, NUMBERS, NODES, WEIGHTS)
    click.echo(f"{'graph':<14} {'family':<10} {'fault':<34} " + " ".join(f"{column:<8}" for column in columns))
    for name in GRAPHS:
        for fault in GRAPH_FAULTS:
            if name in fault.graphs:
                seen = fault.seen_by(graphs, name, ALL_CHECKS)
                marks = " ".join(f"{'x' if column in seen else '-':<8}" for column in columns)
                wanted = fault.must - (set() if name == FLOAT32 else {NUMBERS})
                missed += not wanted <= seen
                verdict = "" if wanted <= seen else "  NOT SEEN"
                click.echo(f"{name:<14} {fault.family:<10} {fault.name:<34} {marks}{verdict}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
