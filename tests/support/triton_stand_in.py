"""Copied as `model.py` of the model `cisi`: what Triton's ONNX Runtime backend does, in its Python backend.

In the model's folder it appends a line to `batches.jsonl` for each execution, the shapes of its images, before it waits
until there is no file `hold`.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        (self._output,) = (tensor["name"] for tensor in config["output"])
        self._folder = Path(args["model_repository"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        graph = self._folder / args["model_version"] / "model.onnx"
        self._session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        # Not `as_numpy`, which is for NumPy 1 here.
        arrays = [
            {name: np.from_dlpack(utils.get_input_tensor_by_name(request, name)) for name in self._inputs}
            for request in requests
        ]
        shapes = [each[self._inputs[0]].shape for each in arrays]
        with (self._folder / "batches.jsonl").open("a") as file:
            file.write(json.dumps(shapes) + "\n")
        while (self._folder / "hold").exists():
            time.sleep(0.01)
        joined = {name: np.concatenate([each[name] for each in arrays]) for name in self._inputs}
        try:
            completed = self._session.run([self._output], joined)[0]
        except Exception as error:
            message = utils.TritonError(str(error), utils.TritonError.INTERNAL)
            return [utils.InferenceResponse(error=message) for _ in requests]
        ends = np.cumsum([shape[0] for shape in shapes])
        parts = np.split(completed, ends[:-1])
        return [
            utils.InferenceResponse([utils.Tensor.from_dlpack(self._output, np.ascontiguousarray(part).copy())])
            for part in parts
        ]
