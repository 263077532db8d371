"""The contract in the metadata of an ONNX model."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from cisi_runtime.contract import METADATA_KEY, Contract
from cisi_runtime.errors import GraphError


def contract_of(model: ModelProto) -> Contract:
    """Read the contract. Raises GraphError when there is none, ContractError for one that is not valid."""
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    if text is None:
        raise GraphError("the graph has no CISI-net contract, expected one written by cisi-export")
    return Contract.from_json(text)


def set_contract(model: ModelProto, contract: Contract) -> None:
    """Write the contract, replacing what was there."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
