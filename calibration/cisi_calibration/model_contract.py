"""What an ONNX model says of itself in its metadata: contract, export record, seal."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import onnx
from onnx import ModelProto

from cisi_runtime.contract import METADATA_KEY, Contract
from cisi_runtime.errors import GraphError
from cisi_runtime.export_record import EMPTY_SEAL, RANGES_KEY, RECORD_KEY, SEAL_KEY, ExportRecord, seal

# Packages that decide what a graph looks like, and those of them that quantise it. `cisi-parity` refuses a record that
# names others: a change here needs a new revision of the record.
_EXPORTERS = ("cisi-net", "torch", "onnxscript", "onnx", "onnxruntime")
_QUANTISERS = ("cisi-net", "onnx", "onnxruntime")


def contract_of(model: ModelProto) -> Contract:
    """Read the contract. Raises GraphError when there is none, ContractError for one that is not valid."""
    text = _metadata(model).get(METADATA_KEY)
    if text is None:
        raise GraphError("the graph has no CISI-net contract, expected one written by cisi-export")
    return Contract.from_json(text)


def set_contract(model: ModelProto, contract: Contract) -> None:
    """Write the contract, replacing all metadata that was there."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})


def record_of(model: ModelProto) -> ExportRecord | None:
    """How a graph was exported, None where it does not say so. Raises ContractError."""
    text = _metadata(model).get(RECORD_KEY)
    return None if text is None else ExportRecord.from_json(text)


def ranges_of(model: ModelProto) -> str | None:
    """The range table that an INT8 graph was made with, as JSON; None where it does not hold one."""
    return _metadata(model).get(RANGES_KEY)


def sealed_bytes(model: ModelProto, record: ExportRecord, ranges: str | None = None) -> bytes:
    """The file of a graph with its record, the range table of an INT8 graph as JSON, and its seal. The same graph gives
    the same bytes."""
    copy = ModelProto()
    copy.CopyFrom(model)
    entries = {METADATA_KEY: contract_of(model).to_json(), RECORD_KEY: record.to_json()}
    entries |= {} if ranges is None else {RANGES_KEY: ranges}
    entries[SEAL_KEY] = EMPTY_SEAL
    onnx.helper.set_model_props(copy, entries)
    return seal(copy.SerializeToString(deterministic=True))


def exporter_versions() -> dict[str, str]:
    """Versions of the packages here that decide what a graph looks like; "" for one that is not installed."""
    return {name: _version(name) for name in _EXPORTERS}


def quantiser_versions() -> dict[str, str]:
    """Versions of those that decide how a graph is quantised."""
    return {name: _version(name) for name in _QUANTISERS}


def _version(package: str) -> str:
    try:
        # Builds for CPUs and GPUs write the same graphs: 2.13.0 and 2.13.0+cpu.
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""


def _metadata(model: ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
