"""Whether an INT8 graph makes an engine that is worth having, found out by building; no GPU needed."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from cisi_runtime.engines.audit import Audit
from cisi_runtime.engines.build import build
from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.errors import EngineError


@dataclasses.dataclass(frozen=True)
class Versus:
    """The audits of a float16 engine and of an INT8 engine of the same network."""

    half: Audit
    int8: Audit

    def __str__(self) -> str:
        asked = sum(item.asked == "int8" for item in self.int8.convolutions)
        return (
            f"engines: float16 {self.half.kernels} kernels, {self.half.float32_writes} feature maps in float32; int8 "
            f"{self.int8.kernels} kernels, {self.int8.float32_writes} feature maps in float32, {asked} of "
            f"{len(self.int8.convolutions)} convolutions asked to be int8, {len(self.int8.wrong)} not what was asked"
        )

    def check(self) -> None:
        """Raise EngineError when a convolution is not what was asked, or the INT8 engine launches more kernels than
        the float16 one: then it has lost."""
        wrong = (*self.half.wrong, *self.int8.wrong)
        if wrong:
            first = wrong[0]
            raise EngineError(f"{self}; {first.name} was asked to be {first.asked} and is {first.built}")
        if self.int8.kernels > self.half.kernels:
            raise EngineError(f"{self}; more kernels than in float16: INT8 has lost")


def build_both(half: bytes, int8: bytes, *, capability: str) -> Versus:
    """Build both graphs with TensorRT-RTX and throw the engines away. Raises as `build`."""
    options = BuildOptions(capabilities=(capability,))
    audits = []
    with tempfile.TemporaryDirectory() as folder:
        for name, serialised in (("float16", half), ("int8", int8)):
            graph = Path(folder) / f"{name}.onnx"
            graph.write_bytes(serialised)
            audits.append(build(graph, options).audit)
    return Versus(*audits)
