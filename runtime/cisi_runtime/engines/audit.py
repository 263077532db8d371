"""What an engine was asked to be and what it is: read off TensorRT's network and its detailed build log."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cisi_runtime.errors import EngineError

# A line of the verbose log for each layer of an engine that was built with DETAILED profiling verbosity.
_LAYER = re.compile(r"Name: (?P<name>[^,]+), LayerType: (?P<type>[^,]+), (?P<rest>Inputs: .*)")
_PART = re.compile(r"(Inputs|Constants|Outputs): \[|TacticName: ")
# "Datatype: Half" in TensorRT-RTX and TensorRT 11, "Format/Datatype: Channel major FP16 format ..." in TensorRT 10.
_TENSOR = re.compile(r"Dimensions: \[(?P<sides>[^\]]*)\].*?Datatype: (?P<type>[^,}\]]+)")
# Where the type of a tensor is "N/A due to dynamic shapes", TensorRT 10 still tells that of the weights.
_WEIGHTS = re.compile(r"Weights: \{\s*Type: (?P<type>\w+)")
# The compiler adds this to the name of the layer that a kernel comes from.
_COMPILED = re.compile(r"_myl\d+_\d+$")
# TensorRT's own kernels for several layers are named after all of them.
_FUSED = " + "
# What is no kernel: synchronisation between streams, and arithmetic with sizes on the CPU.
_NO_KERNEL = frozenset(("signal", "wait", "shape_call"))
_TYPES = {
    "float32": re.compile(r"\b(Float|FP32)\b"),
    "float16": re.compile(r"\b(Half|FP16)\b"),
    "int8": re.compile(r"\b(Int8|INT8)\b"),
    "bfloat16": re.compile(r"\b(BFloat16|BF16)\b"),
}
# What a convolution may compute in, by the precision that the contract of the graph states. The first and last ones of
# an INT8 graph, and those that calibration leaves high, are float16.
_ALLOWED = {"float32": ("float32",), "float16": ("float16",), "int8": ("int8", "float16")}


@dataclasses.dataclass(frozen=True)
class AuditedConvolution:
    """name: the layer's, which is the ONNX node's; asked: "int8" when it reads a dequantised tensor, else the type of
    what it reads; built: the type that its kernel reads, "none" when the log shows no kernel of its own, "unknown"
    when the log does not tell the type in a way known here."""

    name: str
    asked: str
    built: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """kernels: how many an inference launches; float32_writes: how many times one of them writes a feature map (more
    than one row and column) in float32."""

    convolutions: tuple[AuditedConvolution, ...]
    kernels: int
    float32_writes: int

    @property
    def wrong(self) -> tuple[AuditedConvolution, ...]:
        """The convolutions that are not what was asked."""
        return tuple(item for item in self.convolutions if item.built != item.asked)

    def faults(self, precision: str) -> list[str]:
        """Where the engine is less than a graph of this precision ("float32", "float16", "int8") promises, whether the
        builder or the graph itself left it so; one line for each convolution, by name."""
        found = [
            f"{item.name} was asked to be {item.asked} and is {item.built}"
            if item.built != item.asked
            else f"{item.name} is {item.built} in the graph, expected {' or '.join(_ALLOWED[precision])}"
            for item in self.convolutions
            if item.built != item.asked or item.built not in _ALLOWED[precision]
        ]
        if not found and all(item.built != precision for item in self.convolutions):
            found.append(f"no convolution is {precision}")
        return found

    def check(self, precision: str) -> None:
        """Raise EngineError when there are faults, all named."""
        faults = self.faults(precision)
        if faults:
            raise EngineError(
                f"precision audit failed: {len(faults)} of {len(self.convolutions)} convolutions are not what "
                f"{precision} asks for: {'; '.join(faults)}"
            )

    def __str__(self) -> str:
        built = collections.Counter(item.built for item in self.convolutions)
        kinds = ", ".join(f"{count} {kind}" for kind, count in built.items())
        return f"{len(self.convolutions)} convolutions: {kinds}; {self.kernels} kernels"

    def table(self) -> str:
        """A line for each convolution: what was asked and what was built."""
        width = max((len(item.name) for item in self.convolutions), default=0)
        head = f"{'convolution':<{width}}  {'asked':<8}  built"
        return "\n".join([head, *(f"{i.name:<{width}}  {i.asked:<8}  {i.built}" for i in self.convolutions)])

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Audit:
        """What `dataclasses.asdict` made of one."""
        convolutions = tuple(AuditedConvolution(**item) for item in values["convolutions"])
        return cls(convolutions, values["kernels"], values["float32_writes"])


def audit_log(asked: Mapping[str, str], log: Iterable[str]) -> Audit:
    """asked: type by layer name of every convolution, in order; log: messages of the build."""
    built: dict[str, str] = {}
    kernels = float32_writes = 0
    for match in filter(None, map(_LAYER.search, log)):
        if match["type"] in _NO_KERNEL:
            continue
        kernels += 1
        parts = _parts(match["rest"])
        float32_writes += sum(
            _type(found["type"]) == "float32" and _is_map(found["sides"])
            for found in _TENSOR.finditer(parts.get("Outputs", ""))
        )
        read = _TENSOR.search(parts.get("Inputs", ""))
        weights = _WEIGHTS.search(match["rest"])
        kind = _type(read["type"]) if read else "unknown"
        if kind == "unknown" and weights:
            kind = _type(weights["type"])
        for name in match["name"].split(_FUSED):
            built.setdefault(_COMPILED.sub("", name), kind)
    convolutions = tuple(AuditedConvolution(name, kind, built.get(name, "none")) for name, kind in asked.items())
    return Audit(convolutions, kernels, float32_writes)


def _type(text: str) -> str:
    return next((name for name, words in _TYPES.items() if words.search(text)), "unknown")


def _parts(text: str) -> dict[str, str]:
    """The lists of a layer by name; a list ends where the next, or the tactic, begins."""
    marks = list(_PART.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark[1]: text[mark.end() : end] for mark, end in zip(marks, ends, strict=True) if mark[1]}


def _is_map(sides: str) -> bool:
    """`N, C, H, W` with H and W free or above 1."""
    numbers = [int(side) for side in sides.split(",") if side.strip().lstrip("-").isdecimal()]
    return len(numbers) == 4 and all(side != 1 for side in numbers[2:])
