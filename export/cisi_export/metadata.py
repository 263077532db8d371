"""The contract in a graph's metadata; without PyTorch."""

from __future__ import annotations

import onnx
from onnx import ModelProto

from cisi_runtime.contract import METADATA_KEY, Contract


def set_contract(model: ModelProto, contract: Contract) -> None:
    """Write the contract into the metadata, in place of what stood there."""
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
