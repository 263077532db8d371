"""Faults planted into exported files are seen by the checks that are there for them."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from onnx import ModelProto

from cisi_calibration.model_contract import exporter_versions, sealed_bytes
from cisi_calibration.precision_plan import serialised_plan_faults
from cisi_export.against_checkpoint import _FreshExport
from cisi_export.compare_structure import structure_differences
from cisi_export.exporting import GraphOptions
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.errors import GraphError
from cisi_runtime.export_record import ExportRecord, is_sealed
from cisi_train.checkpoint import load_checkpoint
from tests.support.graph_faults import (
    FLOAT32,
    GRAPH_FAULTS,
    GRAPHS,
    NODES,
    NUMBERS,
    PLAN,
    SEAL,
    GraphFault,
    Graphs,
    compared,
    resealed,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_exports")]


@pytest.fixture(scope="module")
def graphs(tiny_checkpoint_path: Path) -> Graphs:
    return Graphs(load_checkpoint(tiny_checkpoint_path))


@pytest.mark.parametrize("name", GRAPHS)
def test_structure_shows_every_fault(graphs: Graphs, name: str) -> None:
    faults = [fault for fault in GRAPH_FAULTS if name in fault.graphs]
    missed = {}
    for fault in faults:
        seen = fault.seen_by(graphs, name, frozenset((SEAL, PLAN, NODES)))
        must = fault.must - {NUMBERS}
        must |= set() if "refused" in must else {SEAL}
        if not must <= seen:
            missed[fault.name] = must - seen
    assert missed == {}
    assert len(faults) >= 20


@pytest.mark.parametrize(
    "fault", [fault for fault in GRAPH_FAULTS if NUMBERS in fault.must], ids=lambda fault: fault.name.replace(" ", "-")
)
def test_numbers_alone_show_it(graphs: Graphs, fault: GraphFault) -> None:
    assert fault.seen_by(graphs, FLOAT32, frozenset((NUMBERS,))) == {NUMBERS}


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_is_seen_where_nothing_is_wrong(graphs: Graphs, name: str) -> None:
    data = graphs.sealed(name)
    assert is_sealed(data)
    assert serialised_plan_faults(data) == []
    assert structure_differences(graphs[name], ModelProto.FromString(data)) == []
    if name == FLOAT32:  # whose faults numbers must show
        assert all(item.passed for item in compared(data, graphs))


@pytest.mark.parametrize(
    ("target", "options", "record"),
    [
        ("cpu", {"face": "tensor", "size": (64, 96)}, {}),
        ("cpu", {"size": (64, 96), "batch": 2}, {"kept_float": ("style.convs.0",), "reduce_range": True}),
        ("tensorrt", {"face": "tensor", "size": (64, 96)}, {}),
        ("tensorrt", {"batch": 3}, {"kept_float": ("decoder.blocks.0.conv1", "decoder.up.1.conv")}),
    ],
)
def test_sound_int8_graphs_are_not_refused(
    graphs: Graphs, target: str, options: dict[str, Any], record: dict[str, Any]
) -> None:
    """Of other faces and sizes, and with convolutions in float."""
    written = dataclasses.replace(ExportRecord(exporter_versions(), "0" * 64), **record)
    first, second = (
        _FreshExport(graphs.checkpoint, GraphOptions("int8", target, **options)).int8(graphs.table, written)
        for _ in range(2)
    )
    data = sealed_bytes(first, written, graphs.table.to_json())
    assert serialised_plan_faults(data) == []
    assert structure_differences(second, ModelProto.FromString(data)) == []
    read_graph(data)


def test_a_new_seal_does_not_hide_a_changed_node(graphs: Graphs) -> None:
    model = ModelProto.FromString(graphs.sealed(FLOAT32))
    GRAPH_FAULTS[0].plant(model)
    data = resealed(model)
    assert is_sealed(data)
    assert structure_differences(graphs[FLOAT32], ModelProto.FromString(data))


def test_other_names_and_another_order_are_no_difference(graphs: Graphs) -> None:
    model = ModelProto.FromString(graphs.sealed(FLOAT32))
    for node in model.graph.node:
        node.name = f"other {node.name}"
        node.input[:] = [name if name in ("", "image", "hole_mask") else f"t_{name}" for name in node.input]
        node.output[:] = [name if name == "completed" else f"t_{name}" for name in node.output]
    for item in model.graph.initializer:
        item.name = f"t_{item.name}"
    for item in model.graph.value_info:
        item.name = f"t_{item.name}"
    nodes = sorted(model.graph.node, key=lambda node: node.op_type)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert structure_differences(graphs[FLOAT32], model) == []


def test_what_is_said_of_tensors_is_compared_too(graphs: Graphs) -> None:
    model = ModelProto.FromString(graphs.sealed(FLOAT32))
    model.graph.value_info[3].type.tensor_type.shape.dim[1].dim_value = 7
    assert len(structure_differences(graphs[FLOAT32], model)) == 1
    square = ModelProto.FromString(graphs.sealed(FLOAT32))
    for item in (*square.graph.input, *square.graph.output):
        for side in item.type.tensor_type.shape.dim:
            if side.dim_param:
                side.dim_param = "side"
    assert structure_differences(graphs[FLOAT32], square)


def test_a_range_table_that_lacks_a_tensor_is_an_error_of_ours(graphs: Graphs) -> None:
    fresh = _FreshExport(graphs.checkpoint, GraphOptions(precision="int8"))
    fresh.__dict__["float_twin"] = graphs[FLOAT32]
    fewer = dict(list(graphs.table.ranges.items())[1:])
    with pytest.raises(GraphError, match="the range table in the graph: has no range for"):
        fresh.int8(dataclasses.replace(graphs.table, ranges=fewer), None)
