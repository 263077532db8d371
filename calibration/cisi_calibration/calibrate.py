"""A float32 graph and photographs to an INT8 graph that keeps its budget, with the table and the report of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from onnx import ModelProto

from cisi_calibration.convolutions import candidates, convolutions
from cisi_calibration.defaults import BUDGET_DB, METHOD
from cisi_calibration.metadata import contract_of, set_contract
from cisi_calibration.pictures import Photographs
from cisi_calibration.place import float_weights, place_cpu, place_tensorrt
from cisi_calibration.quality import Judge, Loss, Metric
from cisi_calibration.search import Placement, find_placement
from cisi_calibration.table import RangeTable, observe
from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError, ParityError


@dataclasses.dataclass(frozen=True)
class Request:
    """How to calibrate. table: ranges to use instead of observing them; metric: for the report."""

    photographs: Photographs
    method: str = METHOD
    budget_db: float = BUDGET_DB
    reduce_range: bool = False
    table: RangeTable | None = None
    metric: Metric | None = None


@dataclasses.dataclass(frozen=True)
class Calibration:
    """An INT8 graph and where it comes from. unseen: its loss on photographs that neither ranges nor search saw."""

    model: ModelProto
    table: RangeTable
    placement: Placement
    unseen: Loss

    def report(self) -> str:
        """For people: every candidate's cost, what was decided, and what the whole graph loses."""
        lines = [f"{'convolution':<36} {'alone in INT8':>14} {'LPIPS':>7}  placed"]
        for name, loss in self.placement.alone.items():
            lpips = "-" if loss.lpips is None else f"{loss.lpips:.4f}"
            placed = "high" if name in self.placement.high else "INT8"
            lines.append(f"{name:<36} {loss.hole_psnr_db:>11.1f} dB {lpips:>7}  {placed}")
        chosen = len(self.placement.alone) - len(self.placement.high)
        lines.append(f"all {len(self.placement.alone)} in INT8: {self.placement.all_int8}")
        if self.placement.high:
            lines.append(f"{chosen} in INT8: {self.placement.chosen}")
        lines.append(f"photographs that the search never saw: {self.unseen}")
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """The report by name."""
        return {
            "method": self.table.method,
            "images": self.table.images,
            "placement": dataclasses.asdict(self.placement),
            "unseen": dataclasses.asdict(self.unseen),
        }


def calibrate(model: ModelProto, half: ModelProto | None, request: Request) -> Calibration:
    """Observe or load the ranges, search for the placement, and check it on photographs that neither saw.

    model: the float32 graph of the `cpu` lowering for pictures of any size; half: the float16 graph of the same
    weights, for an INT8 graph for TensorRT, or None for one for CPUs. Raises GraphError for other graphs, ParityError
    when the budget cannot be met or is not kept.
    """
    check_graph(model)
    if half is not None:
        check_half(half, model)
    table = request.table or observe(model, request.photographs, request.method)

    def place(high: Collection[str]) -> ModelProto:
        return apply_table(model, half, table, high, reduce_range=request.reduce_range)

    names = list(candidates(half or model, "tensorrt" if half else "cpu"))
    judge = Judge(model, request.photographs.search, request.metric)
    placement = find_placement(names, place, judge, request.budget_db)
    result = place(placement.high)
    unseen = Judge(model, request.photographs.unseen, request.metric).loss(result)
    calibration = Calibration(result, table, placement, unseen)
    if not unseen.within(request.budget_db):
        raise ParityError(
            f"the budget of {request.budget_db:g} dB was kept on the photographs of the search, but not on others: "
            f"{unseen}"
        )
    return calibration


def apply_table(
    model: ModelProto, half: ModelProto | None, table: RangeTable, high: Collection[str], *, reduce_range: bool = False
) -> ModelProto:
    """An INT8 graph from ranges and a decision, without looking at any picture; for graphs of one size too."""
    if half is None:
        placed, contract = place_cpu(model, table, high, reduce_range=reduce_range), contract_of(model)
    else:
        placed, contract = place_tensorrt(half, float_weights(model), table, high), contract_of(half)
    set_contract(placed, dataclasses.replace(contract, precision="int8"))
    return placed


def check_graph(model: ModelProto) -> None:
    """Raise GraphError unless this is the graph that INT8 graphs for CPUs are made of: float32, for any size."""
    contract = contract_of(model)
    if not candidates(model, "cpu"):
        raise GraphError("holds no convolution that could become INT8")
    if (contract.precision, contract.target) != ("float32", "cpu"):
        raise GraphError(
            f"is the {contract.precision} graph of the {contract.target} lowering, expected the float32 graph of the "
            "cpu lowering (cisi-export --ckpt best.pt)"
        )
    _check_sizes(model, contract)


def check_half(half: ModelProto, model: ModelProto) -> None:
    """Raise GraphError unless this is the float16 graph of the same weights, for any size."""
    contract = contract_of(half)
    convolutions(half)
    if (contract.precision, contract.target) != ("float16", "tensorrt"):
        raise GraphError(
            f"is the {contract.precision} graph of the {contract.target} lowering, expected the float16 graph "
            "(cisi-export --ckpt best.pt --fp16)"
        )
    if contract.weights_sha256 != contract_of(model).weights_sha256:
        raise GraphError("comes from other weights than the float32 graph")
    _check_sizes(half, contract)


def _check_sizes(model: ModelProto, contract: Contract) -> None:
    sides = model.graph.input[0].type.tensor_type.shape.dim
    if any(sides[axis].HasField("dim_value") for axis in ((0, 1, 2) if contract.face == "uint8" else (0, 2, 3))):
        raise GraphError("takes one size or batch only, expected a graph for any (cisi-export without --size)")
