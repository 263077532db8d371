"""A graph against a fresh export of its checkpoint, node by node: operators, attributes, wiring, constants, contract.

Results on some pictures say nothing of what happens at other sizes, in larger batches, or without a hole. Two graphs
that are the same node by node, and say the same of their tensors, compute the same everywhere.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from cisi_calibration.model_contract import contract_of
from cisi_runtime.contract import METADATA_KEY
from cisi_runtime.export_record import RANGES_KEY, RECORD_KEY, SEAL_KEY


def structure_differences(fresh: ModelProto, actual: ModelProto) -> list[str]:
    """How a graph differs from a fresh export, in words; empty for none.

    Names of nodes and tensors, the order of nodes, and texts for people may differ: they compute nothing.
    """
    comparison = _Comparison(_Side(fresh), _Side(actual))
    return [*_metadata_differences(actual), *contract_differences(fresh, actual), *comparison.run()]


def _metadata_differences(actual: ModelProto) -> list[str]:
    """What the metadata holds that no export writes there."""
    keys = [entry.key for entry in actual.metadata_props]
    known = {METADATA_KEY, RECORD_KEY, SEAL_KEY}
    if contract_of(actual).precision == "int8":
        known.add(RANGES_KEY)
    strange = sorted({key for key in keys if key not in known or keys.count(key) > 1})
    return [f"metadata: expected no {key!r}, or one alone" for key in strange]


def contract_differences(fresh: ModelProto, actual: ModelProto) -> list[str]:
    """Field by field. Fields of dataclasses within the contract are named with a dot."""
    right, found = (_flat(contract_of(model)) for model in (fresh, actual))
    return [
        f"contract: {name} is {theirs!r}, expected {mine!r} by the checkpoint"
        for (name, mine), (_, theirs) in zip(right, found, strict=True)
        if mine != theirs
    ]


def _flat(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if not dataclasses.is_dataclass(value):
        return [(prefix, value)]
    return [
        item
        for field in dataclasses.fields(value)
        for item in _flat(getattr(value, field.name), f"{prefix}.{field.name}" if prefix else field.name)
    ]


class _Side:
    """A graph with what finds its way in it.

    numbers: of free sides by name, in the order in which they are met: two of one name are the same side. Those without
        a name are one.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.stored: dict[str, TensorProto] = {item.name: item for item in model.graph.initializer}
        self.producers: dict[str, tuple[NodeProto, int]] = {
            name: (node, place) for node in model.graph.node for place, name in enumerate(node.output)
        }
        self.numbers: dict[str, str] = {}


class _Comparison:
    """Walks both graphs from their outputs to their inputs, in pairs of tensors."""

    def __init__(self, fresh: _Side, actual: _Side) -> None:
        self._fresh, self._actual = fresh, actual
        self._partner: dict[str, str] = {}
        self._partner_of: dict[str, str] = {}
        self._nodes: dict[int, int] = {}
        self._stored: set[str] = set()
        self._differences: list[str] = []

    def run(self) -> list[str]:
        """All differences that can be reached without guessing which nodes belong together."""
        fresh, actual = self._fresh.model, self._actual.model
        declared = [_declared(side) for side in (self._fresh, self._actual)]
        for right, found in zip(*declared, strict=False):
            if right != found:
                self._differences.append(f"declares {found}, {right} in a fresh export")
        if len(declared[0]) != len(declared[1]):
            self._differences.append(f"has {len(declared[1])} inputs and outputs, expected {len(declared[0])}")
        versions = [sorted((entry.domain, entry.version) for entry in model.opset_import) for model in (fresh, actual)]
        if versions[0] != versions[1] or fresh.ir_version != actual.ir_version:
            self._differences.append(
                f"operator sets are {versions[1]}, IR version {actual.ir_version}, expected {versions[0]}, "
                f"{fresh.ir_version}"
            )
        pending = [(a.name, b.name, "output") for a, b in zip(fresh.graph.output, actual.graph.output, strict=False)]
        while pending:
            pending += self._pair(*pending.pop())
        unused = [node for node in actual.graph.node if id(node) not in self._nodes.values()]
        # Where the walk stopped at a difference, what lies behind it was not reached.
        if unused and not self._differences:
            self._differences.append(f"{len(unused)} nodes that nothing reads, the first is {_title(unused[0])}")
        extra = sorted(self._actual.stored.keys() - self._stored)
        if extra and not self._differences:
            self._differences.append(f"{len(extra)} stored tensors that nothing reads, the first is {extra[0]}")
        self._compare_intermediate_types()
        return self._differences

    def _compare_intermediate_types(self) -> None:
        """What both graphs say of the tensors between nodes. Runtimes believe it."""
        fresh, actual = self._fresh.model.graph, self._actual.model.graph
        said = {item.name: item for item in actual.value_info}
        for item in fresh.value_info:
            theirs = self._partner.get(item.name, item.name)
            other = said.get(theirs)
            right = _type(item, self._fresh.numbers)
            found = None if other is None else _type(other, self._actual.numbers)
            if found is None and item.name in self._partner:
                self._differences.append(f"the file says nothing of {theirs}, expected {right}")
            elif found is not None and right != found:
                self._differences.append(f"{theirs} is said to be {found}, expected {right}")
        # ONNX Runtime's quantiser leaves what was said of the weights that it replaced.
        left_over = sum(item.name not in self._partner for item in fresh.value_info)
        unknown = [item.name for item in actual.value_info if item.name not in self._partner_of]
        if len(unknown) != left_over and not self._differences:
            self._differences.append(
                f"value_info names {len(unknown)} tensors that no node computes, {left_over} in a fresh export: "
                f"{unknown[:3]}"
            )
        names = [item.name for item in (*actual.input, *actual.output, *actual.value_info)]
        if len(set(names)) != len(names):
            self._differences.append("says twice what a tensor is")

    def _pair(self, mine: str, theirs: str, reader: str) -> list[tuple[str, str, str]]:
        """Compare two tensors, and return the pairs that they were computed from."""
        if mine in self._partner or theirs in self._partner_of:
            if self._partner.get(mine) != theirs:
                self._differences.append(f"{reader} reads {theirs}, expected {self._partner.get(mine, mine)}")
            return []
        self._partner[mine], self._partner_of[theirs] = theirs, mine
        kinds = [self._kind(side, name) for side, name in ((self._fresh, mine), (self._actual, theirs))]
        if kinds[0] != kinds[1]:
            self._differences.append(f"{reader} reads {kinds[1]} {theirs}, {kinds[0]} in a fresh export")
            return []
        if kinds[0] == "the input" and mine != theirs:
            self._differences.append(f"{reader} reads the input {theirs}, expected {mine}")
        if kinds[0] == "the stored tensor":
            self._stored.add(theirs)
            difference = _tensor_difference(self._fresh.stored[mine], self._actual.stored[theirs])
            if difference:
                self._differences.append(f"{reader} reads {theirs}, which {difference}")
        if kinds[0] != "the result":
            return []
        return self._pair_nodes(self._fresh.producers[mine], self._actual.producers[theirs])

    def _pair_nodes(self, mine: tuple[NodeProto, int], theirs: tuple[NodeProto, int]) -> list[tuple[str, str, str]]:
        fresh, actual = mine[0], theirs[0]
        title = _title(actual)
        if mine[1] != theirs[1]:
            self._differences.append(f"{title}: its result {theirs[1]} is read, expected {mine[1]}")
        if id(fresh) in self._nodes:
            if self._nodes[id(fresh)] != id(actual):
                self._differences.append(f"{title}: another node gives the other results")
            return []
        self._nodes[id(fresh)] = id(actual)
        if (fresh.domain, fresh.op_type, fresh.overload) != (actual.domain, actual.op_type, actual.overload):
            self._differences.append(f"{title}: expected {fresh.op_type} there")
            return []
        attributes = [{item.name: _value(item) for item in node.attribute} for node in (fresh, actual)]
        for name in sorted(attributes[0].keys() | attributes[1].keys()):
            right, found = (side.get(name, "none") for side in attributes)
            if right != found:
                self._differences.append(f"{title}: {name} is {found}, expected {right}")
        if len(fresh.input) != len(actual.input) or len(fresh.output) != len(actual.output):
            self._differences.append(f"{title}: has {len(actual.input)} inputs, expected {len(fresh.input)}")
            return []
        # An empty name is an optional input that is left out.
        return [(a, b, title) for a, b in zip(fresh.input, actual.input, strict=True) if a or b]

    @staticmethod
    def _kind(side: _Side, name: str) -> str:
        if not name:
            return "nothing"
        if name in side.stored:
            return "the stored tensor"
        return "the result" if name in side.producers else "the input"


def _title(node: NodeProto) -> str:
    return f"{node.op_type} {node.name or node.output[0]}"


def _declared(side: _Side) -> list[tuple[str, int, tuple[Any, ...] | None]]:
    """Name, type and shape of each input and output."""
    graph = side.model.graph
    return [(item.name, *_type(item, side.numbers)) for item in (*graph.input, *graph.output)]


def _type(item: ValueInfoProto, numbers: dict[str, str]) -> tuple[int, tuple[Any, ...] | None]:
    """Type, and shape where there is one. numbers: see `_Side`."""
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    sides: list[Any] = [
        side.dim_value if side.HasField("dim_value") else numbers.setdefault(side.dim_param, f"free {len(numbers)}")
        for side in tensor.shape.dim
    ]
    return tensor.elem_type, tuple(sides)


def _value(attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return value.data_type, tuple(value.dims), numpy_helper.to_array(value).tobytes()
    return tuple(value) if isinstance(value, list) or hasattr(value, "append") else value


def _tensor_difference(mine: TensorProto, theirs: TensorProto) -> str:
    """In words, "" for none: bit for bit."""
    if (mine.data_type, tuple(mine.dims)) != (theirs.data_type, tuple(theirs.dims)):
        names = [f"{TensorProto.DataType.Name(item.data_type)} {list(item.dims)}" for item in (mine, theirs)]
        return f"is {names[1]}, {names[0]} in a fresh export"
    right, found = numpy_helper.to_array(mine), numpy_helper.to_array(theirs)
    if right.tobytes() == found.tobytes():
        return ""
    differing = int((right != found).sum()) or right.size
    return f"differs in {differing} of {right.size} values"
