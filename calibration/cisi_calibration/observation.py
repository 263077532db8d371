"""A float32 graph watched while it runs: histograms of its activations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper

from cisi_calibration.convolutions import TO_RGB, candidates
from cisi_calibration.histogram import Histogram
from cisi_calibration.model_contract import contract_of
from cisi_calibration.photographs import picture_and_hole
from cisi_runtime.backends.graph import CPU_PROVIDER, LOG_ERRORS_ONLY
from cisi_runtime.errors import DataError
from cisi_runtime.progress_on_stderr import counted


def observed_tensors(model: ModelProto) -> dict[str, str]:
    """Tensors of this graph, by their names in a range table: both sides of every convolution that may become INT8 on
    any target, but not the output of the one to RGB, which stays in float.

    Where only a ReLU reads the output, directly or behind a rearrangement, its range is that of the ReLU's output: all
    256 levels go to what the ReLU lets through, which clips at zero anyway.
    """
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    tensors: dict[str, str] = {}
    for name, node in candidates(model, "cpu").items():
        output = node.output[0]
        reader = readers[output][0]
        if reader.op_type == "DepthToSpace" and len(readers[output]) == 1:
            reader = readers[reader.output[0]][0]
        if reader.op_type == "Relu" and len(readers[reader.input[0]]) == 1:
            output = reader.output[0]
        tensors[f"{name} input"] = node.input[0]
        if name != TO_RGB:
            tensors[f"{name} output"] = output
    return tensors


def observe_histograms(
    model: ModelProto, pictures: Sequence[Path], before: dict[str, Histogram] | None = None
) -> dict[str, Histogram]:
    """Run every picture, 256x256 with a training hole of its own, and collect a histogram for each observed tensor.

    A tensor that two convolutions read is observed once. before: histograms of other pictures to continue; they are
    changed. Raises PictureError for a picture that cannot be read, DataError for activations that are not finite.
    """
    contract = contract_of(model)
    tensors = list(dict.fromkeys(observed_tensors(model).values()))
    session = _session_with_outputs(model, tensors)
    histograms = before or {name: Histogram() for name in tensors}
    for path in counted(pictures, "ranges of activations", "image"):
        image, hole = picture_and_hole(path)
        values = session.run(tensors, contract.io.inputs(image[None], hole[None]))
        for name, value in zip(tensors, values, strict=True):
            try:
                histograms[name].update(value)
            except ValueError as error:
                raise DataError(f"{path}: gives activations that are not finite in {name}") from error
    return histograms


def _session_with_outputs(model: ModelProto, tensors: list[str]) -> onnxruntime.InferenceSession:
    copy = ModelProto()
    copy.CopyFrom(model)
    for name in tensors:
        copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = LOG_ERRORS_ONLY
    # Every observed tensor lives until the end of a run anyway. An arena would keep a second copy of each.
    options.enable_cpu_mem_arena = False
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=[CPU_PROVIDER])
