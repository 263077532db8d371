"""ONNX files of ours as models that can be rewritten."""

from __future__ import annotations

from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto

from cisi_runtime.backends.graph import read_graph
from cisi_runtime.errors import GraphError


def read_model(path: Path) -> ModelProto:
    """Load a graph with a contract. Raises GraphError and ContractError."""
    try:
        serialised = path.read_bytes()
        read_graph(serialised)
        return onnx.load_from_string(serialised)
    except FileNotFoundError as error:
        raise GraphError("no such file, expected a graph that cisi-export wrote") from error
    except (OSError, DecodeError) as error:
        raise GraphError("cannot be read, expected an ONNX graph") from error


def check_valid(model: ModelProto) -> None:
    """Raise onnx's error unless a model passes its checker in full."""
    onnx.checker.check_model(model, full_check=True)
