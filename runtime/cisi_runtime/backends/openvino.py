"""OpenVINO on the CPU."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.cores import available_cores
from cisi_runtime.backends.graph import GraphInfo, read_graph
from cisi_runtime.errors import NO_MEMORY, GraphError
from cisi_runtime.face import BatchSize

# Sides for which a graph of any size is compiled when it is opened: those of the windows of photographs.
_USUAL_SIDE = 256
# Compiled sizes that are kept. One of 256x256 holds about 60 MB at preset paper, one of 1024x1024 about 330 MB.
_MAX_COMPILED = 4
# OpenVINO's names for the precision of float32 graphs, and of what is not quantised in INT8 graphs.
_PRECISIONS = {"stored": "f32", "bf16": "bf16"}


class OpenVinoBackend(Backend):
    """An ONNX graph of ours in OpenVINO's CPU plug-in: convolutions with Q/DQ in INT8, everything else in float32.

    The graph is compiled for each height and width, which runs 1.1 to 1.5 times as fast as a graph of any size. The
    first call of a new size takes a few tenths of a second longer; `prepare` does that in advance. Pictures of a batch
    run one by one: on a CPU a batch gains nothing.

    graph and errors: as for `OnnxRuntimeBackend`.
    threads: of each call, 0 for all cores. Calls from several threads run side by side where that leaves cores.
    precision: "bf16" runs a float32 graph in bfloat16, and raises GraphError on a CPU that does not have it.
    """

    def __init__(self, graph: Path | bytes | GraphInfo, *, threads: int = 0, precision: str = "stored") -> None:
        info = read_graph(graph)
        if info.contract.holds_float16:
            raise GraphError(f"{info.label}: holds float16, expected a float32 graph, or an int8 graph for CPUs")
        # Without the hint OpenVINO silently computes in bfloat16 where the CPU has it.
        self._config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision]}
        cores = available_cores()
        # A stream for each call that can run beside others.
        streams = max(1, cores // threads) if threads else 1
        self._config |= {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * (threads or cores)}
        # A process that leaves cores has neighbours, whose first threads would sit on the same core.
        self._config["ENABLE_CPU_PINNING"] = threads == 0
        self._core = openvino.Core()
        if precision == "bf16" and info.contract.precision != "float32":
            raise GraphError(
                f"{info.label}: is {info.contract.precision}, which gains nothing by bf16, expected float32"
            )
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise GraphError(
                "precision bf16: this CPU has no bfloat16 instructions, expected one with them, or float32"
            )
        self._label = info.label
        try:
            self._model = self._core.read_model(info.source if isinstance(info.source, bytes) else str(info.source))
        except RuntimeError as error:
            raise GraphError(f"{self._label}: OpenVINO cannot load it: {_reason(error)}") from error
        super().__init__("openvino", info.contract, info.fixed, precision)
        # Compiled graphs by size, the one used last at the end; idle requests of each.
        self._compiled: OrderedDict[BatchSize, _Compiled] = OrderedDict()
        self._lock = threading.Lock()
        batch, height, width = info.fixed.sides
        self.prepare((batch or 1, height or _USUAL_SIDE, width or _USUAL_SIDE))

    def _prepare(self, size: BatchSize) -> str | None:
        """Compile for a size, unless that was done."""
        with self._lock:
            key = self._key(size)
            if key in self._compiled:
                return None
            start = time.perf_counter()
            self._compiled_for(key)
            took = 1000.0 * (time.perf_counter() - start)
        return f"openvino: compiled for {key[2]}x{key[1]} pixels in {took:.0f} ms"

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        key = self._key(self.contract.io.size_of(image))
        with self._lock:
            compiled = self._compiled_for(key)
        step = key[0]
        completed = np.empty_like(image)
        try:
            with compiled.request() as request:
                for start in range(0, len(image), step):
                    part = slice(start, start + step)
                    inputs = dict(zip(self.contract.inputs, (image[part], hole_mask[part]), strict=True))
                    # The request writes each result into the same memory.
                    completed[part] = request.infer(inputs)[self.contract.output]
        except RuntimeError as error:
            raise GraphError(f"OpenVINO failed on an image of shape {image.shape}: {_reason(error)}") from error
        return completed

    def _key(self, size: BatchSize) -> BatchSize:
        """The size that a batch is run with: picture by picture, unless the graph has a batch of its own."""
        return (self.fixed.batch or 1, *size[1:])

    def _compiled_for(self, key: BatchSize) -> _Compiled:
        compiled = self._compiled.get(key)
        if compiled is None:
            model = self._model.clone()
            try:
                model.reshape({name: list(shape) for name, shape in self.contract.io.input_shapes(key).items()})
                compiled = _Compiled(self._core.compile_model(model, "CPU", self._config))
            except RuntimeError as error:
                raise GraphError(f"{self._label}: OpenVINO cannot load it: {_reason(error)}") from error
            self._compiled[key] = compiled
            if len(self._compiled) > _MAX_COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return compiled

    def _close(self) -> None:
        with self._lock:
            self._compiled.clear()
            del self._model, self._core


class _Compiled:
    """A compiled graph with its idle requests. A request serves one call at a time."""

    def __init__(self, model: openvino.CompiledModel) -> None:
        self._model = model
        self._idle: list[openvino.InferRequest] = []

    @contextlib.contextmanager
    def request(self) -> Iterator[openvino.InferRequest]:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        try:
            yield request
        finally:
            self._idle.append(request)


def _reason(error: RuntimeError) -> str:
    """OpenVINO's messages begin with places in its source, and end with the reason."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return NO_MEMORY if "bad_alloc" in reason or reason.startswith("Failed to allocate") else reason
