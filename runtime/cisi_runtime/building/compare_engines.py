"""Compares the engines of a float16 and an INT8 graph: precision and kernel count. Needs no GPU."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from cisi_runtime.building.process import build_engine
from cisi_runtime.engines.audit import Audit
from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.errors import EngineError


@dataclasses.dataclass(frozen=True)
class EngineComparison:
    """The audits of a float16 engine and of an INT8 engine of the same network."""

    float16: Audit
    int8: Audit

    def __str__(self) -> str:
        asked = sum(item.asked == "int8" for item in self.int8.convolutions)
        return (
            f"engines: float16 {self.float16.kernels} kernels, {self.float16.float32_writes} feature maps in float32; "
            f"int8 {self.int8.kernels} kernels, {self.int8.float32_writes} feature maps in float32, {asked} of "
            f"{len(self.int8.convolutions)} convolutions asked to be int8, {len(self.int8.mismatches)} not as asked"
        )

    def check(self) -> None:
        """Raise EngineError when a convolution is not what was asked for, or when the INT8 engine launches more kernels
        than the float16 one: then it is no gain."""
        mismatches = (*self.float16.mismatches, *self.int8.mismatches)
        if mismatches:
            first = mismatches[0]
            raise EngineError(f"{self}; {first.name} was asked to be {first.asked} and is {first.built}")
        if self.int8.kernels > self.float16.kernels:
            raise EngineError(f"{self}; more kernels than float16: INT8 is no gain")


def compare_engines(fp16_graph: bytes, int8_graph: bytes, *, capability: str) -> EngineComparison:
    """Build both graphs with TensorRT-RTX for one compute capability, and keep only the audits. Raises EngineError."""
    options = BuildOptions(capabilities=(capability,))
    audits = []
    with tempfile.TemporaryDirectory() as folder:
        for name, serialised in (("float16", fp16_graph), ("int8", int8_graph)):
            graph = Path(folder) / f"{name}.onnx"
            graph.write_bytes(serialised)
            audits.append(build_engine(graph, options).audit)
    return EngineComparison(*audits)
