"""A float32 graph and photographs become an INT8 graph that keeps its budget, with its ranges and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

from onnx import ModelProto

from cisi_calibration.convolutions import candidates, convolutions
from cisi_calibration.defaults import BUDGET_DB, METHOD
from cisi_calibration.model_contract import contract_of, quantiser_versions, sealed_bytes, set_contract
from cisi_calibration.photographs import Photographs
from cisi_calibration.qdq import float_weights, insert_qdq_cpu, insert_qdq_tensorrt
from cisi_calibration.quality import Loss, Metric, QualityJudge
from cisi_calibration.search import Placement, costliest_in_int8, find_placement
from cisi_calibration.table import RangeTable, check_table, observe
from cisi_runtime.console import tell
from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError, ParityError
from cisi_runtime.export_record import ExportRecord


@dataclasses.dataclass(frozen=True)
class CalibrationOptions:
    """How to calibrate.

    photographs: which of them give ranges, guide the search, and give the verdict.
    method: how ranges are read off histograms; one of `METHODS`.
    budget_db: hole PSNR against float32 that the INT8 graph must keep.
    reduce_range: 7-bit weights, for CPUs without VNNI.
    table: ranges to use instead of observing them.
    metric: perceptual distance for the report.
    """

    photographs: Photographs
    method: str = METHOD
    budget_db: float = BUDGET_DB
    reduce_range: bool = False
    table: RangeTable | None = None
    metric: Metric | None = None


@dataclasses.dataclass(frozen=True)
class Calibration:
    """An INT8 graph and how it came about.

    model: the graph, with its contract.
    table: the ranges that it was made with.
    placement: which convolutions are INT8, and what each of them costs.
    unseen: its loss on photographs that neither ranges nor search saw.
    reduce_range: its weights have 7 bits.
    """

    model: ModelProto
    table: RangeTable
    placement: Placement
    unseen: Loss
    reduce_range: bool = False

    def sealed_bytes(self, record: ExportRecord) -> bytes:
        """The file of the graph. record: of the float graph that it was made from."""
        kept_float = tuple(sorted(self.placement.kept_float))
        versions = record.versions | quantiser_versions()
        record = dataclasses.replace(record, versions=versions, kept_float=kept_float, reduce_range=self.reduce_range)
        return sealed_bytes(self.model, record, self.table.to_json())

    def per_layer(self) -> str:
        """For people: what each convolution costs in INT8, and what was decided."""
        placement = self.placement
        lines = [f"{'convolution':<36} {'alone in INT8':>14} {'LPIPS':>7}  placed"]
        for name, loss in placement.per_layer.items():
            lpips = "-" if loss.lpips is None else f"{loss.lpips:.4f}"
            placed = "float" if name in placement.kept_float else "INT8"
            lines.append(f"{name:<36} {loss.hole_psnr_db:>11.1f} dB {lpips:>7}  {placed}")
        return "\n".join(lines)

    def summary(self) -> str:
        """For people: what the whole graph loses."""
        placement = self.placement
        lines = [f"all {len(placement.per_layer)} in INT8: {placement.all_int8}"]
        if placement.kept_float:
            quantised = len(placement.per_layer) - len(placement.kept_float)
            lines.append(f"{quantised} in INT8: {placement.final_loss}")
        lines.append(f"photographs that the search never saw: {self.unseen}")
        return "\n".join(lines)

    def advice(self) -> str:
        """What to do when a later check of the graph fails: which convolutions cost most, and the option."""
        placement = self.placement
        return (
            f"{costliest_in_int8(placement.per_layer, placement.kept_float)}; "
            "a larger --budget-db keeps more of them in float"
        )

    def as_json(self) -> dict[str, Any]:
        """The report by name."""
        return {
            "method": self.table.method,
            "images": self.table.images,
            "placement": dataclasses.asdict(self.placement),
            "unseen": dataclasses.asdict(self.unseen),
        }


def calibrate(
    graph: Path | str | ModelProto, options: CalibrationOptions, fp16_graph: Path | str | ModelProto | None = None
) -> Calibration:
    """Observe or load the ranges, search for the placement, and check it on photographs that neither has seen.

    graph: the float32 graph of the `cpu` lowering, for pictures of any size.
    fp16_graph: the float16 graph of the same weights, for an INT8 graph for TensorRT; None: for CPUs.

    Raises GraphError for other graphs, ParityError when the budget cannot be met or is not kept, ValueError for 7-bit
    weights in a graph for TensorRT.
    """
    if options.reduce_range and fp16_graph is not None:
        raise ValueError("reduce_range is for CPUs without VNNI, expected no fp16_graph")
    model = _loaded(graph)
    check_float_graph(model)
    fp16_model = None if fp16_graph is None else _loaded(fp16_graph)
    if fp16_model is not None:
        check_fp16_graph(fp16_model, model)
    photographs = options.photographs
    if options.table is not None:
        check_table("the table", options.table, model, options.method)
    table = options.table or observe(model, photographs, options.method)

    def quantised(kept_float: Collection[str]) -> ModelProto:
        return quantise(model, fp16_model, table, kept_float, reduce_range=options.reduce_range)

    names = list(candidates(fp16_model or model, "tensorrt" if fp16_model else "cpu"))
    quality = QualityJudge(model, photographs.search, options.metric)
    placement = find_placement(names, quantised, quality, options.budget_db)
    result = quantised(placement.kept_float)
    tell(f"verdict: {len(photographs.unseen)} photographs that neither ranges nor search saw")
    unseen = QualityJudge(model, photographs.unseen, options.metric).loss(result)
    calibration = Calibration(result, table, placement, unseen, options.reduce_range)
    if not unseen.within(options.budget_db):
        raise ParityError(
            f"the budget of {options.budget_db:g} dB was kept on the photographs of the search, but not on others: "
            f"{unseen}; {calibration.advice()}"
        )
    return calibration


def quantise(
    model: ModelProto,
    fp16_graph: ModelProto | None,
    table: RangeTable,
    kept_float: Collection[str],
    *,
    reduce_range: bool = False,
) -> ModelProto:
    """An INT8 graph from ranges and a decision, without looking at any picture. Also for graphs of one size.

    Raises GraphError where every convolution stays in float.
    """
    names = candidates(fp16_graph or model, "cpu" if fp16_graph is None else "tensorrt")
    if names.keys() <= set(kept_float):
        raise GraphError("every convolution is to stay in float, expected one in INT8")
    if fp16_graph is None:
        quantised, contract = insert_qdq_cpu(model, table, kept_float, reduce_range=reduce_range), contract_of(model)
    else:
        quantised = insert_qdq_tensorrt(fp16_graph, float_weights(model), table, kept_float)
        contract = contract_of(fp16_graph)
    set_contract(quantised, dataclasses.replace(contract, precision="int8"))
    return quantised


def check_float_graph(model: ModelProto) -> None:
    """Raise GraphError unless this is the graph that INT8 graphs for CPUs are made from: float32, for any size."""
    contract = contract_of(model)
    if not candidates(model, "cpu"):
        raise GraphError("holds no convolution that could become INT8")
    if (contract.precision, contract.target) != ("float32", "cpu"):
        raise GraphError(
            f"is the {contract.precision} graph of the {contract.target} lowering, expected the float32 graph of the "
            "cpu lowering (cisi-export --ckpt best.pt)"
        )
    _check_any_size(model, contract)


def check_fp16_graph(fp16_graph: ModelProto, model: ModelProto) -> None:
    """Raise GraphError unless this is the float16 graph of the same weights, for any size."""
    contract = contract_of(fp16_graph)
    convolutions(fp16_graph)
    if (contract.precision, contract.target) != ("float16", "tensorrt"):
        raise GraphError(
            f"is the {contract.precision} graph of the {contract.target} lowering, expected the float16 graph "
            "(cisi-export --ckpt best.pt --fp16)"
        )
    if contract.weights_sha256 != contract_of(model).weights_sha256:
        raise GraphError("comes from other weights than the float32 graph")
    _check_any_size(fp16_graph, contract)


def _check_any_size(model: ModelProto, contract: Contract) -> None:
    sides = model.graph.input[0].type.tensor_type.shape.dim
    if any(sides[axis].HasField("dim_value") for axis in contract.io.axes):
        raise GraphError("takes one size or batch only, expected a graph for any (cisi-export without --size)")


def _loaded(graph: Path | str | ModelProto) -> ModelProto:
    if isinstance(graph, ModelProto):
        return graph
    from cisi_calibration.model_file import read_model

    return read_model(Path(graph))
