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
import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cisi_calibration.convolutions import PIXEL_READERS, candidates
from cisi_calibration.model_contract import contract_of, exporter_versions, sealed_bytes
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
        if NUMBERS in checks and not all(item.passed for item in _compared(data, graphs)):
            seen.add(NUMBERS)
        return seen


def _compared(data: bytes, graphs: Graphs) -> list[Comparison]:
    """On golden cases; a float32 graph as optimised alone."""
    info = read_graph(data)
    if info.contract.precision != "float32":
        return check_graph_parity(info, graphs.golden)
    with OnnxRuntimeBackend(data) as backend:
        return compare_backend("optimised", backend, graphs.golden, "float32")


def _nodes(model: ModelProto, operator: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == operator]


def _stored(model: ModelProto, name: str) -> TensorProto:
    return next(item for item in model.graph.initializer if item.name == name)


def _scale_stored(name_of: Callable[[ModelProto], str], factor: float) -> Callable[[ModelProto], None]:
    def plant(model: ModelProto) -> None:
        item = _stored(model, name_of(model))
        array = numpy_helper.to_array(item)
        item.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), item.name))

    return plant


def _constant(model: ModelProto, name: str, value: float, kind: type = np.float32) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=kind), name))
    return name


def _axes(model: ModelProto, name: str, axes: list[int]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(axes, dtype=np.int64), name))
    return name


def _insert_before(model: ModelProto, reader: NodeProto, nodes: list[NodeProto]) -> None:
    place = next(number for number, node in enumerate(model.graph.node) if node is reader or node == reader)
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)


def _side(model: ModelProto, axis: int) -> list[NodeProto]:
    """Nodes whose result "count" is the size of an axis of the mask, from operators that every graph may hold."""
    zero, one = _constant(model, "c_zero", 0.0), _constant(model, "c_one", 1.0)
    along = _axes(model, "c_axis", [axis])
    rest = _axes(model, "c_rest", [0, 1, 2])
    return [
        helper.make_node("Cast", ["hole_mask"], ["c_mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["c_mask", zero], ["c_zeros"]),
        helper.make_node("Add", ["c_zeros", one], ["c_ones"]),
        helper.make_node("ReduceSum", ["c_ones", along], ["c_sum"], keepdims=1),
        helper.make_node("ReduceMean", ["c_sum", rest], ["count"], keepdims=0),
    ]


def _darker_where(axis: int, operator: str, limit: float) -> Callable[[ModelProto], None]:
    """The fill a tenth closer to black where an axis of the batch is of some sizes."""

    def plant(model: ModelProto) -> None:
        (round_node,) = _nodes(model, "Round")
        nodes = _side(model, axis)
        nodes.append(helper.make_node(operator, ["count", _constant(model, "c_limit", limit)], ["c_is"]))
        nodes.append(helper.make_node("Mul", [round_node.input[0], _constant(model, "c_factor", 0.9)], ["c_dark"]))
        nodes.append(helper.make_node("Where", ["c_is", "c_dark", round_node.input[0]], ["c_chosen"]))
        _insert_before(model, round_node, nodes)
        round_node.input[0] = "c_chosen"

    return plant


def _by_shape(model: ModelProto) -> None:
    """The same with the operator for it."""
    (round_node,) = _nodes(model, "Round")
    height = _constant(model, "c_index", 1, np.int64)
    nodes = [
        helper.make_node("Shape", ["hole_mask"], ["c_shape"]),
        helper.make_node("Gather", ["c_shape", height], ["c_height"]),
        helper.make_node("Cast", ["c_height"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["count", _constant(model, "c_limit", 192.0)], ["c_is"]),
        helper.make_node("Mul", [round_node.input[0], _constant(model, "c_factor", 0.9)], ["c_dark"]),
        helper.make_node("Where", ["c_is", "c_dark", round_node.input[0]], ["c_chosen"]),
    ]
    _insert_before(model, round_node, nodes)
    round_node.input[0] = "c_chosen"


def _style_of_all(model: ModelProto) -> None:
    """In batches of three and more every picture is rendered in the mean style."""
    code = next(node for node in _nodes(model, "Gemm") if "to_code" in node.input[1]).output[0]
    reader = next(node for node in model.graph.node if code in node.input)
    nodes = _side(model, 0)
    nodes.append(helper.make_node("Greater", ["count", _constant(model, "c_limit", 2.5)], ["c_is"]))
    nodes.append(helper.make_node("ReduceMean", [code, _axes(model, "c_batch", [0])], ["c_mean"], keepdims=1))
    nodes.append(helper.make_node("Where", ["c_is", "c_mean", code], ["c_chosen"]))
    _insert_before(model, reader, nodes)
    reader.input[:] = ["c_chosen" if name == code else name for name in reader.input]


def _no_hole(model: ModelProto) -> None:
    """A picture without a hole comes out a tenth darker."""
    last = next(node for node in model.graph.node if node.output[0] == "completed")
    nodes = [
        helper.make_node("Cast", ["hole_mask"], ["c_mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["c_mask", _axes(model, "c_all", [0, 1, 2])], ["count"], keepdims=0),
        helper.make_node("LessOrEqual", ["count", _constant(model, "c_limit", 0.0)], ["c_is"]),
        helper.make_node("Mul", [last.input[0], _constant(model, "c_factor", 0.9)], ["c_dark"]),
        helper.make_node("Where", ["c_is", "c_dark", last.input[0]], ["c_chosen"]),
    ]
    _insert_before(model, last, nodes)
    last.input[0] = "c_chosen"


def _epsilon(value: float, count: int | None = None) -> Callable[[ModelProto], None]:
    """Another epsilon in the first `count` norms."""

    def plant(model: ModelProto) -> None:
        norms = _nodes(model, "InstanceNormalization")[:count]
        for node in norms:
            for attribute in node.attribute:
                attribute.f = value
        if norms:
            return
        # Written out: one constant, read by the Add in front of each square root.
        roots = {name for node in _nodes(model, "Sqrt") for name in node.input}
        adds = [node for node in _nodes(model, "Add") if node.output[0] in roots][:count]
        other = _constant(model, "c_epsilon", value)
        for node in adds:
            stored = {item.name for item in model.graph.initializer}
            node.input[:] = [other if name in stored else name for name in node.input]

    return plant


def _polynomial_tanh(model: ModelProto) -> None:
    """tanh with an error of 1e-4: x + 1e-4 x, in front of it."""
    (tanh,) = _nodes(model, "Tanh")
    factor = _constant(model, "c_factor", 1.0 + 2e-4)
    _insert_before(model, tanh, [helper.make_node("Mul", [tanh.input[0], factor], ["c_steeper"])])
    tanh.input[0] = "c_steeper"


def _bypass(operator: str) -> Callable[[ModelProto], None]:
    def plant(model: ModelProto) -> None:
        node = _nodes(model, operator)[-1]
        for other in model.graph.node:
            other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
        model.graph.node.remove(node)

    return plant


def _dilation(model: ModelProto) -> None:
    """8 becomes 7 in one direction."""
    for node in _nodes(model, "Conv"):
        for attribute in node.attribute:
            if attribute.name == "dilations" and list(attribute.ints) == [8, 8]:
                attribute.ints[:] = [8, 7]
                pads = next(item for item in node.attribute if item.name == "pads")
                pads.ints[:] = [8, 7, 8, 7]
                return


def _mask_channel(model: ModelProto) -> None:
    """The mask comes in at 0.9."""
    (concat,) = _nodes(model, "Concat")
    factor = _constant(model, "c_factor", 0.9)
    _insert_before(model, concat, [helper.make_node("Mul", [concat.input[1], factor], ["c_mask_scaled"])])
    concat.input[1] = "c_mask_scaled"


def _decode_by_127(model: ModelProto) -> None:
    for item in model.graph.initializer:
        array = numpy_helper.to_array(item)
        if array.dtype == np.float32 and array.size == 1 and float(array) in (127.5, np.float32(1 / 127.5)):
            other = 127.0 if float(array) == 127.5 else 1 / 127
            item.CopyFrom(numpy_helper.from_array(np.full_like(array, other), item.name))


def _contract(**fields: object) -> Callable[[ModelProto], None]:
    def plant(model: ModelProto) -> None:
        contract = contract_of(model)
        for path, value in fields.items():
            inner, _, name = path.rpartition("__")
            if inner:
                value = dataclasses.replace(getattr(contract, inner), **{name: value})
            contract = dataclasses.replace(contract, **{inner or name: value})
        entry = next(item for item in model.metadata_props if item.key == "cisi_contract")
        entry.value = contract.to_json()

    return plant


def _first_scale(model: ModelProto) -> str:
    return _nodes(model, "QuantizeLinear")[3].input[1]


def _pair_apart(model: ModelProto) -> None:
    """The DequantizeLinear behind an activation has a scale 2 % larger."""
    quantise_node = _nodes(model, "QuantizeLinear")[3]
    reader = next(node for node in model.graph.node if node.input and node.input[0] == quantise_node.output[0])
    scale = float(numpy_helper.to_array(_stored(model, quantise_node.input[1])))
    reader.input[1] = _constant(model, "c_scale", 1.02 * scale)


def _swapped_scales(model: ModelProto) -> None:
    first, second = (_stored(model, node.input[1]) for node in _nodes(model, "QuantizeLinear")[3:5])
    arrays = [numpy_helper.to_array(item) for item in (first, second)]
    first.CopyFrom(numpy_helper.from_array(arrays[1], first.name))
    second.CopyFrom(numpy_helper.from_array(arrays[0], second.name))


def _zero_point(model: ModelProto) -> None:
    node = _nodes(model, "QuantizeLinear")[3]
    item = _stored(model, node.input[2])
    array = numpy_helper.to_array(item)
    item.CopyFrom(numpy_helper.from_array((array.astype(np.int64) + 1).astype(array.dtype), item.name))


def _weight_pair(model: ModelProto) -> NodeProto:
    """The DequantizeLinear of a weight that is as wide as high, so that either axis fits."""
    for node in _nodes(model, "DequantizeLinear"):
        if node.input[0].endswith("weight_quantized"):
            sides = _stored(model, node.input[0]).dims
            if sides[0] == sides[1]:
                return node
    raise AssertionError("no such weight")


def _weight_axis(model: ModelProto) -> None:
    for attribute in _weight_pair(model).attribute:
        attribute.i = 1


def _weight_zero_point(model: ModelProto) -> None:
    item = _stored(model, _weight_pair(model).input[2])
    item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) + np.int8(3), item.name))


def _coarse_weight(model: ModelProto) -> None:
    """Half the steps, twice the scale."""
    node = _weight_pair(model)
    for name, factor in ((node.input[0], 0.5), (node.input[1], 2.0)):
        item = _stored(model, name)
        array = numpy_helper.to_array(item)
        changed = np.trunc(array * factor) if array.dtype == np.int8 else array * factor
        item.CopyFrom(numpy_helper.from_array(changed.astype(array.dtype), name))


def _lost_pair(model: ModelProto) -> None:
    """The input of an INT8 convolution is not quantised."""
    for node in _nodes(model, "Conv")[3:]:
        pair = [other for other in model.graph.node if other.output[0] == node.input[0]]
        if pair and pair[0].op_type == "DequantizeLinear":
            source = next(other for other in model.graph.node if other.output[0] == pair[0].input[0])
            node.input[0] = source.input[0]
            return
    raise AssertionError("no such convolution")


def _surplus_pair(model: ModelProto) -> None:
    """256 levels in front of the tanh."""
    (tanh,) = _nodes(model, "Tanh")
    scale, zero = _constant(model, "c_scale", 0.02), _constant(model, "c_zero", 0, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", [tanh.input[0], scale, zero], ["c_quantised"]),
        helper.make_node("DequantizeLinear", ["c_quantised", scale, zero], ["c_dequantised"]),
    ]
    _insert_before(model, tanh, nodes)
    tanh.input[0] = "c_dequantised"


def _no_zero_point(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            del node.input[2:]


def _detour(operator: str) -> Callable[[ModelProto], None]:
    """What an operator reads goes through float16 and back."""

    def plant(model: ModelProto) -> None:
        node = _nodes(model, operator)[-1]
        nodes = [
            helper.make_node("Cast", [node.input[0]], ["c_half"], to=TensorProto.FLOAT16),
            helper.make_node("Cast", ["c_half"], ["c_whole"], to=TensorProto.FLOAT),
        ]
        _insert_before(model, node, nodes)
        node.input[0] = "c_whole"

    return plant


def _in_float16(operator: str) -> Callable[[ModelProto], None]:
    """The last node of an operator computes in float16, between casts."""

    def plant(model: ModelProto) -> None:
        node = _nodes(model, operator)[-1]
        half, whole = f"{node.output[0]}_half", node.output[0]
        before = [helper.make_node("Cast", [node.input[0]], ["c_half"], to=TensorProto.FLOAT16)]
        stored = {item.name for item in model.graph.initializer}
        for place, name in enumerate(node.input[1:], 1):
            if name in stored and _stored(model, name).data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(_stored(model, name)).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(array, f"{name}_half"))
                node.input[place] = f"{name}_half"
            elif name and name not in stored:
                before.append(helper.make_node("Cast", [name], [f"c_half_{place}"], to=TensorProto.FLOAT16))
                node.input[place] = f"c_half_{place}"
        _insert_before(model, node, before)
        node.input[0] = "c_half"
        node.output[0] = half
        place = next(number for number, other in enumerate(model.graph.node) if other.output[0] == half)
        model.graph.node.insert(place + 1, helper.make_node("Cast", [half], [whole], to=TensorProto.FLOAT))

    return plant


_NUMBERS = frozenset((NODES, NUMBERS))
_REFUSED = frozenset((REFUSED,))
_INT8 = (INT8_CPU, INT8_TENSORRT)
_PLAN = frozenset((NODES, PLAN))
_HALF = (FLOAT16, INT8_TENSORRT)
GRAPH_FAULTS = (
    GraphFault("shape", "height above 192", _darker_where(1, "Greater", 192.5), must=_NUMBERS),
    GraphFault("shape", "height above 512", _darker_where(1, "Greater", 512.5), must=_NUMBERS),
    GraphFault("shape", "width above 500", _darker_where(2, "Greater", 500.5), must=_NUMBERS),
    GraphFault("shape", "width up to 127", _darker_where(2, "LessOrEqual", 127.5), must=_NUMBERS),
    GraphFault("shape", "height above 192, by Shape", _by_shape, must=_REFUSED),
    GraphFault("batch", "three and more share a style", _style_of_all, must=_NUMBERS),
    GraphFault("batch", "three and more are darker", _darker_where(0, "Greater", 2.5), must=_NUMBERS),
    GraphFault("hole", "none: the picture is darker", _no_hole, must=_NUMBERS),
    GraphFault("epsilon", "1e-4 in the first norm", _epsilon(1e-4, 1), must=_NUMBERS),
    GraphFault("epsilon", "1.2e-5 in all norms", _epsilon(1.2e-5)),
    GraphFault("epsilon", "1e-3 in all norms", _epsilon(1e-3)),
    GraphFault("activation", "tanh off by 1e-4", _polynomial_tanh, must=_NUMBERS),
    GraphFault("activation", "no clip", _bypass("Clip")),
    GraphFault("activation", "no rounding: truncated", _bypass("Round")),
    GraphFault("network", "dilation 8 is 7 in one direction", _dilation),
    GraphFault("network", "mask channel at 0.9", _mask_channel),
    GraphFault("network", "pixels decoded by 1/127", _decode_by_127),
    GraphFault("contract", "padding rule", _contract(padding="edge")),
    GraphFault("contract", "another preset's width", _contract(architecture__dim=16)),
    GraphFault("contract", "dilations", _contract(architecture__dilations=(2, 4, 8, 15))),
    GraphFault("contract", "provenance", _contract(provenance__data_licence="public domain")),
    GraphFault("contract", "target", _contract(target="tensorrt"), (FLOAT32, INT8_CPU), _REFUSED),
    GraphFault("contract", "float32 that says INT8", _contract(precision="int8"), (FLOAT32,), _REFUSED),
    GraphFault("contract", "INT8 that says float32", _contract(precision="float32"), _INT8, _REFUSED),
    GraphFault("contract", "float16 that says float32", _contract(precision="float32"), (FLOAT16,), _REFUSED),
    GraphFault("scales", "an activation's x 0.5", _scale_stored(_first_scale, 0.5), _INT8, _PLAN),
    GraphFault("scales", "an activation's x 1.02", _scale_stored(_first_scale, 1.02), _INT8, _PLAN),
    GraphFault("scales", "Q and DQ 2 % apart", _pair_apart, _INT8, _PLAN),
    GraphFault("scales", "two swapped", _swapped_scales, _INT8, _PLAN),
    GraphFault("scales", "a zero point off by one", _zero_point, _INT8, _PLAN),
    GraphFault("scales", "a weight's axis", _weight_axis, _INT8, _PLAN),
    GraphFault("scales", "a weight's zero points", _weight_zero_point, _INT8, _PLAN),
    GraphFault("scales", "a weight in 7 bits of 8", _coarse_weight, _INT8, frozenset((NODES,))),
    GraphFault("scales", "an input that is not quantised", _lost_pair, _INT8, _PLAN),
    GraphFault("scales", "256 levels before the tanh", _surplus_pair, _INT8, _PLAN),
    GraphFault("scales", "no zero points", _no_zero_point, _INT8, _PLAN),
    GraphFault("types", "tanh of float16", _detour("Tanh"), _HALF, _PLAN),
    GraphFault("types", "square root of float16", _detour("Sqrt"), _HALF, _PLAN),
    GraphFault("types", "a norm's mean in float16", _in_float16("ReduceMean"), _HALF, _PLAN),
    GraphFault("types", "a norm's square root in float16", _in_float16("Sqrt"), _HALF, _PLAN),
    GraphFault("types", "style pooling in float16", _in_float16("ReduceSum"), _HALF, _PLAN),
    GraphFault("types", "style MLP in float16", _in_float16("Gemm"), _HALF, _PLAN),
    GraphFault("types", "codec in float16", _in_float16("Round"), _HALF, _PLAN),
    GraphFault("types", "tanh in float16", _in_float16("Tanh"), _HALF, _PLAN),
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
