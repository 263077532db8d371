"""`cisi-parity --ckpt`: a graph against the live network of a checkpoint, on a machine that has PyTorch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import ModelProto

from cisi_calibration.model_contract import exporter_versions, record_of
from cisi_calibration.precision_plan import table_of
from cisi_calibration.quantisation import quantise
from cisi_calibration.table import RangeTable, check_table
from cisi_export.compare_layers import compare_layers
from cisi_export.compare_structure import structure_differences
from cisi_export.exporting import GraphOptions, float_graph
from cisi_export.golden_cases import make_golden
from cisi_export.verification import verify_export
from cisi_runtime.backends.graph import GraphInfo
from cisi_runtime.errors import GraphError, ParityError
from cisi_runtime.export_record import ExportRecord
from cisi_runtime.parity.checks import cpu_runnable
from cisi_runtime.parity.compare import case_inputs
from cisi_runtime.parity.golden import Golden
from cisi_runtime.parity.structure import check_plan, check_seal
from cisi_runtime.parity.verdict import ParityReport, StructureCheck
from cisi_train.checkpoint import Checkpoint, load_checkpoint

# Largest relative error of a layer that is not a fault, against a fresh export. Float: the same arithmetic, measured 0.
# INT8: what quantising explains, measured 0.12 on untrained weights. Margin 3.
_MAX_LAYER_ERROR = {"float32": 1e-6, "float16": 1e-6, "int8": 0.4}


def verify_against_checkpoint(
    graph: GraphInfo, ckpt: Path, structure: str = "auto"
) -> tuple[Golden, ParityReport, str | None]:
    """Everything that `verify_export` compares, on golden cases made afresh, of sizes that the graph takes, and every
    node with a fresh export.

    structure: "require" makes a difference from the fresh export a failure, "report" only says so, "auto" requires
        where the same versions of PyTorch, onnx and ONNX Runtime exported the graph: others write it in other words.

    Returns the golden cases, the report, and, after a failure, in words the first layer that differs from a fresh
    export. Raises ParityError when graph and checkpoint themselves name different weights, and what reading them
    raises.
    """
    contract, checkpoint = graph.contract, load_checkpoint(ckpt)
    if contract.weights_sha256 != checkpoint.contract.weights_sha256:
        raise ParityError(f"{graph.label} was not made from {ckpt}: its contract names other weights")
    model = onnx.load_from_string(graph.serialised())
    batch, height, width = graph.fixed.sides
    size = None if height is None or width is None else (height, width)
    golden = make_golden(checkpoint, size, batch)
    options = GraphOptions(contract.precision, contract.target, contract.face, size, batch)
    fresh = _FreshExport(checkpoint, options)
    float_model = fresh.float_twin if contract.precision == "int8" else None
    report = verify_export(checkpoint, model, golden, float_model)
    report = dataclasses.replace(report, structure=_structure(graph, model, fresh, structure))
    failed = next((item.case for item in report.comparisons if not item.passed), None)
    if failed is None:
        return golden, report, None
    right = float_model or fresh.model
    case = next(case for case in golden.cases if case.name == failed)
    inputs = case_inputs(contract, case.image, case.hole_mask)
    models = [onnx.load_from_string(cpu_runnable(item.SerializeToString()).serialised()) for item in (right, model)]
    return golden, report, str(compare_layers(models[0], models[1], inputs, _MAX_LAYER_ERROR[contract.precision]))


class _FreshExport:
    """The graph that this checkpoint and these options give here and now."""

    def __init__(self, checkpoint: Checkpoint, options: GraphOptions) -> None:
        self._checkpoint, self._options = checkpoint, options

    @functools.cached_property
    def float_twin(self) -> ModelProto:
        """The float32 graph of the same lowering."""
        return self._float("float32", self._options.target)

    @functools.cached_property
    def model(self) -> ModelProto:
        """Of a float precision."""
        return self._float(self._options.precision, self._options.target)

    def int8(self, table: RangeTable, record: ExportRecord | None) -> ModelProto:
        """The INT8 graph of a range table and of a decision; None: all convolutions in 8 bits."""
        options = self._options
        fp16_graph = self._float("float16", options.target) if options.target == "tensorrt" else None
        float_model = self.float_twin if options.target == "cpu" else self._float("float32", "cpu")
        check_table("the range table in the graph", table, float_model)
        kept_float, reduce_range = (record.kept_float, record.reduce_range) if record else ((), False)
        return quantise(float_model, fp16_graph, table, kept_float, reduce_range=reduce_range)

    def _float(self, precision: str, target: str) -> ModelProto:
        options = self._options
        return float_graph(
            self._checkpoint,
            precision=precision,
            target=target,
            face=options.face,
            size=options.size,
            batch=options.batch,
        )


def _structure(graph: GraphInfo, model: ModelProto, fresh: _FreshExport, structure: str) -> tuple[StructureCheck, ...]:
    """The graph node by node, its types and scales by themselves, and its seal."""
    record, ours = record_of(model), exporter_versions()
    # A record that names other packages is not one of another version.
    is_other = record is None or (record.versions.keys() == ours.keys() and record.versions != ours)
    note = ""
    if is_other:
        theirs = "unknown versions" if record is None else _named(record.versions)
        note = f"exported with {theirs}; here {_named(ours)}"
    try:
        is_int8 = graph.contract.precision == "int8"
        right = fresh.int8(table_of(model), record) if is_int8 else fresh.model
        differences = _record_differences(record, ours, is_int8=is_int8) + structure_differences(right, model)
    except GraphError as error:
        differences = [str(error)]
    # Where nodes need not be those of a fresh export, the file must at least be the one that was verified.
    others = [*check_plan(graph), check_seal(graph)]
    is_required = structure == "require" or (structure == "auto" and not is_other)
    return (
        StructureCheck("every node as a fresh export's", tuple(differences), is_required, note),
        *(dataclasses.replace(check, is_required=structure != "report") for check in others),
    )


def _record_differences(record: ExportRecord | None, ours: Mapping[str, str], *, is_int8: bool) -> list[str]:
    if record is None:
        return []
    differences = []
    if record.versions.keys() != ours.keys():
        differences.append(f"the export record names versions of {sorted(record.versions)}, expected {sorted(ours)}")
    if not is_int8 and (record.kept_float or record.reduce_range):
        differences.append("the export record speaks of INT8, which a graph of floats does not hold")
    return differences


def _named(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in versions.items())
