"""Graphs as an attacker or a broken disk would make them: refused before ONNX Runtime sees them, memory bounded."""

import json
import tracemalloc
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.graph_file import OPERATORS, read_contents
from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.errors import CisiError, ContractError, GraphError

CONTRACT = next(item.value for item in onnx.load(SHIPPED_GRAPH).metadata_props if item.key == "cisi_contract")


def tiny_model() -> ModelProto:
    """One Relu, with the contract of the graph that ships."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    helper.set_model_props(model, {"cisi_contract": CONTRACT})
    return model


def external(model: ModelProto) -> None:
    item = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[3])
    item.data_location = TensorProto.EXTERNAL
    item.external_data.add(key="location", value="../../etc/passwd")


def huge(model: ModelProto) -> None:
    model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1 << 20, 1 << 20])


def huge_by_overflow(model: ModelProto) -> None:
    model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1 << 32, 1 << 32, 0])


def cut_short(model: ModelProto) -> None:
    model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(15))


def loop(model: ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", "", "x"], ["z"], body=body))


def subgraph_of_a_known_operator(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "body", [], [])))


def foreign_domain(model: ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def function(model: ModelProto) -> None:
    model.functions.append(
        helper.make_function("d", "f", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], model.opset_import)
    )


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add().dims.append(1 << 40)


def wide_padding(model: ModelProto) -> None:
    weight = numpy_helper.from_array(np.zeros((1, 1, 1, 1), dtype=np.float32), "w")
    model.graph.initializer.append(weight)
    model.graph.node.append(helper.make_node("Conv", ["x", "w"], ["z"], pads=[1_000_000] * 4))


def text_tensor(model: ModelProto) -> None:
    model.graph.initializer.append(helper.make_tensor("t", TensorProto.STRING, [1], [b"hello"]))


def many_nodes(model: ModelProto) -> None:
    model.graph.node.extend([model.graph.node[0]] * 20_000)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external, "keeps tensors outside the file"),
        (huge, r"declares a tensor of 1e\+06 numbers or more"),
        (huge_by_overflow, "declares a tensor of 4e"),
        (cut_short, "of 15 bytes where its shape takes 16"),
        (loop, "a node with a subgraph"),
        (subgraph_of_a_known_operator, "a node with a subgraph"),
        (foreign_domain, "holds the operator com.example.Relu"),
        (function, "holds functions"),
        (sparse, "holds sparse tensors"),
        (wide_padding, "an attribute of 1000000, expected at most 64"),
        (text_tensor, "a tensor of ONNX's type 8"),
        (many_nodes, "more than 20000 nodes"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_could_do_harm_is_refused(change: Callable[[ModelProto], None], message: str) -> None:
    model = tiny_model()
    change(model)
    tracemalloc.start()
    try:
        with pytest.raises(GraphError, match=message):
            read_graph(model.SerializeToString())
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_known_field_of_another_kind_hides_nothing() -> None:
    """Readers ignore it, so that what came before counts."""
    node = helper.make_node("RandomNormal", [], ["z"], shape=[1]).SerializeToString() + b"\x25Relu"
    model = tiny_model()
    model.graph.node.add().MergeFromString(node)
    assert b"\x25Relu" in model.SerializeToString()
    with pytest.raises(GraphError, match="holds the operator RandomNormal"):
        read_graph(model.SerializeToString())


def test_a_number_of_more_than_64_bits_is_cut_as_readers_do() -> None:
    model = tiny_model()
    wide_padding(model)
    # A million as protocol buffers write it, and with bits beyond the 64th.
    short, long = b"\xc0\x84\x3d", b"\xc0\x84\xbd\x80\x80\x80\x80\x80\x80\x02"
    data = model.SerializeToString()
    assert data.count(short) == 4
    contents = read_contents(tiny_model().SerializeToString(), "x")
    assert contents.largest_attribute == 0
    attribute = helper.make_attribute("pads", 1_000_000).SerializeToString()
    assert short in attribute
    node = helper.make_node("Relu", ["x"], ["z"]).SerializeToString()
    for number in (short, long):
        changed = attribute.replace(short, number)
        field = b"\x2a" + bytes([len(changed)]) + changed
        whole = node + field
        graph = b"\x0a" + bytes([len(whole)]) + whole
        assert read_contents(b"\x3a" + bytes([len(graph)]) + graph, "x").largest_attribute == 1_000_000


def test_every_cut_of_a_graph_is_refused() -> None:
    data = tiny_model().SerializeToString()
    for length in range(len(data)):
        with pytest.raises(CisiError):
            read_graph(data[:length])


def test_flipped_bits_never_end_in_another_exception() -> None:
    data, rng = tiny_model().SerializeToString(), np.random.default_rng(3)
    refused = 0
    for _ in range(2000):
        changed = bytearray(data)
        changed[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        try:
            read_contents(bytes(changed), "x")
        except GraphError:
            refused += 1
    assert 0 < refused < 2000


def test_contents_are_those_that_onnx_reads() -> None:
    contents, model = read_contents(SHIPPED_GRAPH.read_bytes(), "x"), onnx.load(SHIPPED_GRAPH)
    operators = [node.op_type for node in model.graph.node]
    assert {name: operators.count(name) for name in set(operators)} == dict(contents.operators)
    assert set(operators) <= OPERATORS
    assert contents.metadata == {item.key: item.value for item in model.metadata_props}
    assert contents.weight_types[TensorProto.FLOAT] == operators.count("Conv")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("precision", "int8", "says precision int8, but the graph holds no Q/DQ node"),
        ("precision", "float16", "says precision float16, but the graph holds no float16 weight"),
        ("target", "tensorrt", "says target tensorrt, but the graph has InstanceNormalization nodes"),
    ],
)
def test_a_contract_that_the_graph_contradicts_is_refused(field: str, value: str, message: str) -> None:
    model = onnx.load(SHIPPED_GRAPH)
    contract = json.loads(CONTRACT) | {field: value}
    helper.set_model_props(model, {"cisi_contract": json.dumps(contract)})
    with pytest.raises(ContractError, match=message):
        read_graph(model.SerializeToString())


@pytest.mark.parametrize(
    ("batch", "height", "width", "message"),
    [
        (
            1,
            16,
            64,
            "takes batch 1, width 64, height 16, expected at least one picture, and sides that are multiples of",
        ),
        (1, 64, 72, "multiples of 16, 64 or more"),
        (0, 64, 64, "at least one picture"),
        (1_000_000, 64, 64, "expected at most 134217728 pixels at once"),
    ],
)
def test_a_size_that_no_export_has_is_refused(batch: int, height: int, width: int, message: str) -> None:
    model = onnx.load(SHIPPED_GRAPH)
    del model.graph.value_info[:]
    for item in (*model.graph.input, *model.graph.output):
        for side, number in zip(item.type.tensor_type.shape.dim, (batch, height, width), strict=False):
            side.dim_value = number
    with pytest.raises(ContractError, match=message):
        read_graph(model.SerializeToString())


def test_inputs_of_different_sizes_and_a_large_batch_are_refused() -> None:
    model = onnx.load(SHIPPED_GRAPH)
    del model.graph.value_info[:]
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 80
    with pytest.raises(ContractError, match="its inputs are of different sizes"):
        read_graph(model.SerializeToString())
    for item in (*model.graph.input, *model.graph.output):
        item.type.tensor_type.shape.dim[0].dim_value = 40_000
        item.type.tensor_type.shape.dim[1].dim_param = "height"
    with pytest.raises(ContractError, match="takes batch 40000, width any, height any, expected at most"):
        read_graph(model.SerializeToString())


@pytest.mark.parametrize("where", ["node", "input", "tensor"])
def test_names_that_are_no_text_are_refused(capfd: pytest.CaptureFixture[str], where: str) -> None:
    """ONNX Runtime's own messages quote them, and it would print that it falls back to what it was asked for."""
    graph = onnx.load(SHIPPED_GRAPH).graph
    name = {"node": graph.node[4].output[0], "input": "hole_mask", "tensor": graph.initializer[9].name}[where].encode()
    data = SHIPPED_GRAPH.read_bytes()
    # Behind its length, so that no text of the metadata changes.
    framed, damaged = bytes([len(name)]) + name, bytes([len(name)]) + b"\x80" * len(name)
    assert data.count(framed) >= 2
    with pytest.raises(GraphError, match="is not an ONNX file, or damaged"):
        read_graph(data.replace(framed, damaged))
    assert capfd.readouterr() == ("", "")


def test_a_side_whose_name_is_no_text_is_refused() -> None:
    model = onnx.load(SHIPPED_GRAPH)
    del model.graph.value_info[:]
    for item in (*model.graph.input, *model.graph.output):
        item.type.tensor_type.shape.dim[1].dim_param = "a_long_name_of_a_side"
    data = model.SerializeToString().replace(b"a_long_name_of_a_side", b"\x80" * 21)
    with pytest.raises(GraphError, match="a side of an input has a name that is no text"):
        read_graph(data)
