"""Edits of an ONNX model that each plant one fault: what exporters, converters and people get wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cisi_calibration.model_contract import contract_of


def nodes_of(model: ModelProto, operator: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == operator]


def stored_tensor(model: ModelProto, name: str) -> TensorProto:
    return next(item for item in model.graph.initializer if item.name == name)


def scale_stored(name_of: Callable[[ModelProto], str], factor: float) -> Callable[[ModelProto], None]:
    def plant(model: ModelProto) -> None:
        item = stored_tensor(model, name_of(model))
        array = numpy_helper.to_array(item)
        item.CopyFrom(numpy_helper.from_array((array * factor).astype(array.dtype), item.name))

    return plant


def constant(model: ModelProto, name: str, value: float, kind: type = np.float32) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=kind), name))
    return name


def axes(model: ModelProto, name: str, axes: list[int]) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.array(axes, dtype=np.int64), name))
    return name


def insert_before(model: ModelProto, reader: NodeProto, nodes: list[NodeProto]) -> None:
    place = next(number for number, node in enumerate(model.graph.node) if node is reader or node == reader)
    for offset, node in enumerate(nodes):
        model.graph.node.insert(place + offset, node)


def side(model: ModelProto, axis: int) -> list[NodeProto]:
    """Nodes whose result "count" is the size of an axis of the mask, from operators that every graph may hold."""
    zero, one = constant(model, "c_zero", 0.0), constant(model, "c_one", 1.0)
    along = axes(model, "c_axis", [axis])
    rest = axes(model, "c_rest", [0, 1, 2])
    return [
        helper.make_node("Cast", ["hole_mask"], ["c_mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["c_mask", zero], ["c_zeros"]),
        helper.make_node("Add", ["c_zeros", one], ["c_ones"]),
        helper.make_node("ReduceSum", ["c_ones", along], ["c_sum"], keepdims=1),
        helper.make_node("ReduceMean", ["c_sum", rest], ["count"], keepdims=0),
    ]


def darker_where(axis: int, operator: str, limit: float) -> Callable[[ModelProto], None]:
    """The fill a tenth closer to black where an axis of the batch is of some sizes."""

    def plant(model: ModelProto) -> None:
        (round_node,) = nodes_of(model, "Round")
        nodes = side(model, axis)
        nodes.append(helper.make_node(operator, ["count", constant(model, "c_limit", limit)], ["c_is"]))
        nodes.append(helper.make_node("Mul", [round_node.input[0], constant(model, "c_factor", 0.9)], ["c_dark"]))
        nodes.append(helper.make_node("Where", ["c_is", "c_dark", round_node.input[0]], ["c_chosen"]))
        insert_before(model, round_node, nodes)
        round_node.input[0] = "c_chosen"

    return plant


def by_shape(model: ModelProto) -> None:
    """The same with the operator for it."""
    (round_node,) = nodes_of(model, "Round")
    height = constant(model, "c_index", 1, np.int64)
    nodes = [
        helper.make_node("Shape", ["hole_mask"], ["c_shape"]),
        helper.make_node("Gather", ["c_shape", height], ["c_height"]),
        helper.make_node("Cast", ["c_height"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["count", constant(model, "c_limit", 192.0)], ["c_is"]),
        helper.make_node("Mul", [round_node.input[0], constant(model, "c_factor", 0.9)], ["c_dark"]),
        helper.make_node("Where", ["c_is", "c_dark", round_node.input[0]], ["c_chosen"]),
    ]
    insert_before(model, round_node, nodes)
    round_node.input[0] = "c_chosen"


def style_of_all(model: ModelProto) -> None:
    """In batches of three and more every picture is rendered in the mean style."""
    code = next(node for node in nodes_of(model, "Gemm") if "to_code" in node.input[1]).output[0]
    reader = next(node for node in model.graph.node if code in node.input)
    nodes = side(model, 0)
    nodes.append(helper.make_node("Greater", ["count", constant(model, "c_limit", 2.5)], ["c_is"]))
    nodes.append(helper.make_node("ReduceMean", [code, axes(model, "c_batch", [0])], ["c_mean"], keepdims=1))
    nodes.append(helper.make_node("Where", ["c_is", "c_mean", code], ["c_chosen"]))
    insert_before(model, reader, nodes)
    reader.input[:] = ["c_chosen" if name == code else name for name in reader.input]


def no_hole(model: ModelProto) -> None:
    """A picture without a hole comes out a tenth darker."""
    last = next(node for node in model.graph.node if node.output[0] == "completed")
    nodes = [
        helper.make_node("Cast", ["hole_mask"], ["c_mask"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["c_mask", axes(model, "c_all", [0, 1, 2])], ["count"], keepdims=0),
        helper.make_node("LessOrEqual", ["count", constant(model, "c_limit", 0.0)], ["c_is"]),
        helper.make_node("Mul", [last.input[0], constant(model, "c_factor", 0.9)], ["c_dark"]),
        helper.make_node("Where", ["c_is", "c_dark", last.input[0]], ["c_chosen"]),
    ]
    insert_before(model, last, nodes)
    last.input[0] = "c_chosen"


def epsilon(value: float, count: int | None = None) -> Callable[[ModelProto], None]:
    """Another epsilon in the first `count` norms."""

    def plant(model: ModelProto) -> None:
        norms = nodes_of(model, "InstanceNormalization")[:count]
        for node in norms:
            for attribute in node.attribute:
                attribute.f = value
        if norms:
            return
        # Written out: one constant, read by the Add in front of each square root.
        roots = {name for node in nodes_of(model, "Sqrt") for name in node.input}
        adds = [node for node in nodes_of(model, "Add") if node.output[0] in roots][:count]
        other = constant(model, "c_epsilon", value)
        for node in adds:
            stored = {item.name for item in model.graph.initializer}
            node.input[:] = [other if name in stored else name for name in node.input]

    return plant


def polynomial_tanh(model: ModelProto) -> None:
    """tanh with an error of 1e-4: x + 1e-4 x, in front of it."""
    (tanh,) = nodes_of(model, "Tanh")
    factor = constant(model, "c_factor", 1.0 + 2e-4)
    insert_before(model, tanh, [helper.make_node("Mul", [tanh.input[0], factor], ["c_steeper"])])
    tanh.input[0] = "c_steeper"


def bypass(operator: str) -> Callable[[ModelProto], None]:
    def plant(model: ModelProto) -> None:
        node = nodes_of(model, operator)[-1]
        for other in model.graph.node:
            other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
        model.graph.node.remove(node)

    return plant


def dilation(model: ModelProto) -> None:
    """8 becomes 7 in one direction."""
    for node in nodes_of(model, "Conv"):
        for attribute in node.attribute:
            if attribute.name == "dilations" and list(attribute.ints) == [8, 8]:
                attribute.ints[:] = [8, 7]
                pads = next(item for item in node.attribute if item.name == "pads")
                pads.ints[:] = [8, 7, 8, 7]
                return


def mask_channel(model: ModelProto) -> None:
    """The mask comes in at 0.9."""
    (concat,) = nodes_of(model, "Concat")
    factor = constant(model, "c_factor", 0.9)
    insert_before(model, concat, [helper.make_node("Mul", [concat.input[1], factor], ["c_mask_scaled"])])
    concat.input[1] = "c_mask_scaled"


def decode_by_127(model: ModelProto) -> None:
    for item in model.graph.initializer:
        array = numpy_helper.to_array(item)
        if array.dtype == np.float32 and array.size == 1 and float(array) in (127.5, np.float32(1 / 127.5)):
            other = 127.0 if float(array) == 127.5 else 1 / 127
            item.CopyFrom(numpy_helper.from_array(np.full_like(array, other), item.name))


def contract(**fields: object) -> Callable[[ModelProto], None]:
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


def first_scale(model: ModelProto) -> str:
    return nodes_of(model, "QuantizeLinear")[3].input[1]


def pair_apart(model: ModelProto) -> None:
    """The DequantizeLinear behind an activation has a scale 2 % larger."""
    quantise_node = nodes_of(model, "QuantizeLinear")[3]
    reader = next(node for node in model.graph.node if node.input and node.input[0] == quantise_node.output[0])
    scale = float(numpy_helper.to_array(stored_tensor(model, quantise_node.input[1])))
    reader.input[1] = constant(model, "c_scale", 1.02 * scale)


def swapped_scales(model: ModelProto) -> None:
    first, second = (stored_tensor(model, node.input[1]) for node in nodes_of(model, "QuantizeLinear")[3:5])
    arrays = [numpy_helper.to_array(item) for item in (first, second)]
    first.CopyFrom(numpy_helper.from_array(arrays[1], first.name))
    second.CopyFrom(numpy_helper.from_array(arrays[0], second.name))


def zero_point(model: ModelProto) -> None:
    node = nodes_of(model, "QuantizeLinear")[3]
    item = stored_tensor(model, node.input[2])
    array = numpy_helper.to_array(item)
    item.CopyFrom(numpy_helper.from_array((array.astype(np.int64) + 1).astype(array.dtype), item.name))


def weight_pair(model: ModelProto) -> NodeProto:
    """The DequantizeLinear of a weight that is as wide as high, so that either axis fits."""
    for node in nodes_of(model, "DequantizeLinear"):
        if node.input[0].endswith("weight_quantized"):
            sides = stored_tensor(model, node.input[0]).dims
            if sides[0] == sides[1]:
                return node
    raise AssertionError("no such weight")


def weight_axis(model: ModelProto) -> None:
    for attribute in weight_pair(model).attribute:
        attribute.i = 1


def weight_zero_point(model: ModelProto) -> None:
    item = stored_tensor(model, weight_pair(model).input[2])
    item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item) + np.int8(3), item.name))


def coarse_weight(model: ModelProto) -> None:
    """Half the steps, twice the scale."""
    node = weight_pair(model)
    for name, factor in ((node.input[0], 0.5), (node.input[1], 2.0)):
        item = stored_tensor(model, name)
        array = numpy_helper.to_array(item)
        changed = np.trunc(array * factor) if array.dtype == np.int8 else array * factor
        item.CopyFrom(numpy_helper.from_array(changed.astype(array.dtype), name))


def lost_pair(model: ModelProto) -> None:
    """The input of an INT8 convolution is not quantised."""
    for node in nodes_of(model, "Conv")[3:]:
        pair = [other for other in model.graph.node if other.output[0] == node.input[0]]
        if pair and pair[0].op_type == "DequantizeLinear":
            source = next(other for other in model.graph.node if other.output[0] == pair[0].input[0])
            node.input[0] = source.input[0]
            return
    raise AssertionError("no such convolution")


def surplus_pair(model: ModelProto) -> None:
    """256 levels in front of the tanh."""
    (tanh,) = nodes_of(model, "Tanh")
    scale, zero = constant(model, "c_scale", 0.02), constant(model, "c_zero", 0, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", [tanh.input[0], scale, zero], ["c_quantised"]),
        helper.make_node("DequantizeLinear", ["c_quantised", scale, zero], ["c_dequantised"]),
    ]
    insert_before(model, tanh, nodes)
    tanh.input[0] = "c_dequantised"


def no_zero_point(model: ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            del node.input[2:]


def through(operator: str, kind: int, *between: NodeProto) -> Callable[[ModelProto], None]:
    """What an operator reads goes through another type and back. between: nodes that change nothing there; each reads
    "c_0", "c_1" ... and gives the next."""

    def plant(model: ModelProto) -> None:
        node = nodes_of(model, operator)[-1]
        nodes = [
            helper.make_node("Cast", [node.input[0]], ["c_0"], to=kind),
            *between,
            helper.make_node("Cast", [f"c_{len(between)}"], ["c_whole"], to=TensorProto.FLOAT),
        ]
        insert_before(model, node, nodes)
        node.input[0] = "c_whole"

    return plant


def adain_in_float16(model: ModelProto) -> None:
    """The last shift of an AdaIN layer is added in float16: an operator that may be float16, elsewhere."""
    shift = next(node for node in reversed(nodes_of(model, "Add")) if _is_adain(model, node))
    halves = [helper.make_node("Cast", [name], [f"c_{name}"], to=TensorProto.FLOAT16) for name in shift.input]
    insert_before(model, shift, halves)
    whole = shift.output[0]
    shift.input[:] = [f"c_{name}" for name in shift.input]
    shift.output[0] = "c_sum"
    place = next(number for number, node in enumerate(model.graph.node) if node.output[0] == "c_sum")
    model.graph.node.insert(place + 1, helper.make_node("Cast", ["c_sum"], [whole], to=TensorProto.FLOAT))


def _is_adain(model: ModelProto, node: NodeProto) -> bool:
    producers = {name: other for other in model.graph.node for name in other.output}
    return {producers[name].op_type for name in node.input if name in producers} == {"Mul", "Unsqueeze"}


def lost_output_pair(model: ModelProto) -> None:
    """A result of an INT8 convolution goes into its norm unquantised."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in nodes_of(model, "Conv"):
        (first, *others) = readers[node.output[0]]
        if first.op_type == "QuantizeLinear" and not others:
            pair = readers[first.output[0]][0].output[0]
            for reader in readers[pair]:
                reader.input[:] = [node.output[0] if name == pair else name for name in reader.input]
            return
    raise AssertionError("no such convolution")


def weight_scales(value: float) -> Callable[[ModelProto], None]:
    """The first scale of a weight is another number."""

    def plant(model: ModelProto) -> None:
        item = stored_tensor(model, weight_pair(model).input[1])
        array = numpy_helper.to_array(item).copy()
        array[0] = value
        item.CopyFrom(numpy_helper.from_array(array, item.name))

    return plant


def quantised_bias(model: ModelProto) -> None:
    """A bias in INT32, by a scale of its own."""
    node = next(node for node in nodes_of(model, "Conv") if len(node.input) > 2 and "_dequant" in node.input[1].lower())
    bias = numpy_helper.to_array(stored_tensor(model, node.input[2]))
    model.graph.initializer.append(numpy_helper.from_array(np.rint(bias / 0.001).astype(np.int32), "c_bias"))
    scale = constant(model, "c_scale", 0.00105)
    insert_before(model, node, [helper.make_node("DequantizeLinear", ["c_bias", scale], ["c_bias_float"])])
    node.input[2] = "c_bias_float"


def metadata(key: str, value: str) -> Callable[[ModelProto], None]:
    def plant(model: ModelProto) -> None:
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value

    return plant


def swapped_sides(model: ModelProto) -> None:
    """Height and width change places in what is said of one tensor."""
    for item in model.graph.value_info:
        free = [side for side in item.type.tensor_type.shape.dim if side.dim_param]
        if len(free) >= 3:
            free[-1].dim_param, free[-2].dim_param = free[-2].dim_param, free[-1].dim_param
            return
    raise AssertionError("no such tensor")


def said_twice(model: ModelProto) -> None:
    model.graph.value_info.append(model.graph.value_info[3])


def in_float16(operator: str) -> Callable[[ModelProto], None]:
    """The last node of an operator computes in float16, between casts."""

    def plant(model: ModelProto) -> None:
        node = nodes_of(model, operator)[-1]
        half, whole = f"{node.output[0]}_half", node.output[0]
        before = [helper.make_node("Cast", [node.input[0]], ["c_half"], to=TensorProto.FLOAT16)]
        stored = {item.name for item in model.graph.initializer}
        for place, name in enumerate(node.input[1:], 1):
            if name in stored and stored_tensor(model, name).data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(stored_tensor(model, name)).astype(np.float16)
                model.graph.initializer.append(numpy_helper.from_array(array, f"{name}_half"))
                node.input[place] = f"{name}_half"
            elif name and name not in stored:
                before.append(helper.make_node("Cast", [name], [f"c_half_{place}"], to=TensorProto.FLOAT16))
                node.input[place] = f"c_half_{place}"
        insert_before(model, node, before)
        node.input[0] = "c_half"
        node.output[0] = half
        place = next(number for number, other in enumerate(model.graph.node) if other.output[0] == half)
        model.graph.node.insert(place + 1, helper.make_node("Cast", [half], [whole], to=TensorProto.FLOAT))

    return plant
