"""From the inference module to one ONNX file with our contract in it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import nn
from torch.export import Dim

from cisi_calibration.convolutions import convolutions
from cisi_calibration.model_contract import set_contract
from cisi_runtime.backends.graph_file import OPERATORS
from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError

OPSET = 20


def onnx_graph(
    module: nn.Module, contract: Contract, size: tuple[int, int] | None = None, batch: int | None = None
) -> ModelProto:
    """Export a module of `inference_graph` and check the result.

    size: height and width of the only pictures that the graph takes, multiples of the contract's; None: any such.
    batch: the only batch that it takes; None: any.

    Raises GraphError when the result fails ONNX's checker or holds an operator that no lowering consists of.
    """
    model = unchecked_graph(module, contract, size, batch)
    check_model(model)
    check_opset(model)
    return model


def unchecked_graph(
    module: nn.Module, contract: Contract, size: tuple[int, int] | None, batch: int | None
) -> ModelProto:
    """As `onnx_graph`, without the check, for modules that are only partly rewritten."""
    multiple, face = contract.size_multiple, contract.io
    # Fixed sides are those of the example. An example of one picture would fix a free batch too.
    shapes = face.input_shapes((batch or 2, *(size or (128, 160))))
    dtype = torch.uint8 if face.takes_pixels else torch.float32
    example = tuple(torch.zeros(shape, dtype=dtype) for shape in shapes.values())
    free: list[Any] = [None if batch else Dim("batch", min=1)]
    free += [None if size else multiple * Dim(name, min=contract.min_size // multiple) for name in ("height", "width")]
    dynamic = {axis: dim for axis, dim in zip(face.axes, free, strict=True) if dim is not None}
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(contract.inputs),
            output_names=[contract.output],
            dynamic_shapes=(dynamic, dynamic) if dynamic else None,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip(model)
    set_contract(model, contract)
    for name, node in convolutions(model).items():
        # Audits and profilers of engines show this name. The exporter only numbers nodes.
        node.name = name
    return model


def _strip(model: ModelProto) -> None:
    """Remove what names the exporting machine: every node carries a stack trace with absolute paths."""
    model.doc_string = ""
    model.graph.doc_string = ""
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
    for initialiser in model.graph.initializer:
        del initialiser.metadata_props[:]
    del model.graph.metadata_props[:]


def check_model(model: ModelProto) -> None:
    """Raise GraphError unless ONNX's checker accepts a model in full and it holds only known operators."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise GraphError(f"the graph is not valid ONNX: {str(error).splitlines()[0]}") from error
    unknown = {node.op_type for node in model.graph.node} - OPERATORS
    if unknown or model.functions:
        raise GraphError(f"the graph holds unexpected operators {sorted(unknown)} or functions")


def check_opset(model: ModelProto) -> None:
    """Raise GraphError unless a fresh export is of `OPSET`; another tool may have moved a graph to another one."""
    versions = [entry.version for entry in model.opset_import]
    if versions != [OPSET]:
        raise GraphError(f"the exported graph is of the operator sets {versions}, expected {OPSET}")


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Suppress three messages that every export prints and that do not matter here."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")  # "torchvision is not installed"
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="# The axis name")
            warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
            yield
    finally:
        logger.setLevel(level)
