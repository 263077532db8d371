"""What a graph's file shows of itself without a checkpoint: whether it and its golden file are as they were exported,
and whether its types and scales are those that its contract promises."""

from __future__ import annotations

import dataclasses
from importlib.metadata import entry_points

from cisi_runtime.backends.graph import GraphInfo
from cisi_runtime.errors import ContractError, ParityError
from cisi_runtime.export_record import RECORD_KEY, ExportRecord, is_sealed
from cisi_runtime.parity.golden import Golden
from cisi_runtime.parity.verdict import StructureCheck

PLAN = "types and scales of every node"


def check_structure(info: GraphInfo, golden: Golden, *, is_required: bool = True) -> tuple[StructureCheck, ...]:
    """Everything that can be said of a graph without its checkpoint. Raises ParityError as `check_golden`.

    is_required: whether a difference is a failure.
    """
    check_golden(info, golden)
    checks = (check_seal(info, "; --ckpt tells what differs"), *check_plan(info))
    return tuple(dataclasses.replace(check, is_required=is_required) for check in checks)


def require_as_exported(info: GraphInfo, golden: Golden | None) -> ExportRecord:
    """The record of a graph that is to be made into another file: what is wrong with it would pass for the export's.

    golden: its golden file, None where that is not there. Raises ParityError for a graph that was changed since its
    export, and as `check_golden`.
    """
    if golden is not None:
        check_golden(info, golden)
    for check in (check_seal(info), *check_plan(info)):
        if check.differences:
            raise ParityError(f"{info.label}: {check.differences[0]}; expected the file as it was exported")
    record = record_of(info)
    assert record is not None  # the seal would have failed
    return record


def record_of(info: GraphInfo) -> ExportRecord | None:
    """How a graph was exported, None where it does not say so. Raises ContractError."""
    text = info.metadata.get(RECORD_KEY)
    try:
        return None if text is None else ExportRecord.from_json(text)
    except ContractError as error:
        raise ContractError(f"{info.label}: {error}") from error


def check_golden(info: GraphInfo, golden: Golden) -> None:
    """Raise ParityError for a golden file that is not the one of the graph's export: one that was cut down or edited
    would show less."""
    record = record_of(info)
    if golden.weights_sha256 != info.contract.weights_sha256:
        raise ParityError(f"{info.label}: graph and golden file come from different weights")
    if record is not None and record.golden_sha256 != golden.sha256:
        raise ParityError(
            f"{info.label}: the golden file is not the one that it was exported with; it was changed, or replaced by "
            "another export: export the graph again"
        )


def check_seal(info: GraphInfo, advice: str = "") -> StructureCheck:
    """Whether the file is, byte for byte, as it was exported. advice: ends what is said of one that was changed."""
    name = "the file as exported"
    if record_of(info) is None:
        return StructureCheck(name, ("it has no export record: an older version wrote it; export it again",))
    if not is_sealed(info.serialised()):
        return StructureCheck(name, (f"it was changed after its export{advice}",))
    return StructureCheck(name)


def check_plan(info: GraphInfo) -> tuple[StructureCheck, ...]:
    """Types and scales of every node, of graphs that hold float16 or INT8. Needs onnx."""
    if info.contract.precision == "float32":
        return ()
    (point,) = entry_points(group="cisi.parity", name="plan")
    try:
        faults = point.load()(info.serialised())
    except ModuleNotFoundError as error:
        note = f"not compared: it needs {error.name}, pip install 'cisi-net[parity]'"
        return (StructureCheck(PLAN, note=note),)
    return (StructureCheck(PLAN, tuple(faults)),)
