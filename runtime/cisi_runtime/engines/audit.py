"""Requested and built precision of an engine, from TensorRT's network and its detailed build log."""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Annotated

from msgspec import Meta

from cisi_runtime.errors import EngineError

# The verbose log has such a line for each layer of an engine that is built with DETAILED profiling verbosity.
_LAYER = re.compile(r"Name: (?P<name>[^,]+), LayerType: (?P<type>[^,]+), (?P<rest>Inputs: .*)")
_PART = re.compile(r"(Inputs|Constants|Outputs): \[|TacticName: ")
# "Datatype: Half" in TensorRT-RTX and TensorRT 11, "Format/Datatype: Channel major FP16 format ..." in TensorRT 10.
_TENSOR = re.compile(r"Dimensions: \[(?P<sides>[^\]]*)\].*?Datatype: (?P<type>[^,}\]]+)")
# TensorRT 10 gives "N/A due to dynamic shapes" as the type of some tensors, but still that of their weights.
_WEIGHTS = re.compile(r"Weights: \{\s*Type: (?P<type>\w+)")
# The compiler appends this to the name of the layer that a kernel comes from.
_COMPILED = re.compile(r"_myl\d+_\d+$")
# A kernel for several layers is named after all of them.
_FUSED = " + "
# Not kernels: synchronisation between streams, and arithmetic with sizes on the CPU.
_NO_KERNEL = frozenset(("signal", "wait", "shape_call"))
_TYPES = {
    "float32": re.compile(r"\b(Float|FP32)\b"),
    "float16": re.compile(r"\b(Half|FP16)\b"),
    "int8": re.compile(r"\b(Int8|INT8)\b"),
    "bfloat16": re.compile(r"\b(BFloat16|BF16)\b"),
}
# What a convolution may compute in, by the contract's precision. In an INT8 graph the first and last ones, and those
# that calibration keeps in float, are float16.
_ALLOWED = {"float32": ("float32",), "float16": ("float16",), "int8": ("int8", "float16")}


@dataclasses.dataclass(frozen=True)
class AuditedConvolution:
    """Requested and built precision of one convolution.

    name: of the layer, which is that of the ONNX node.
    asked: "int8" when it reads a dequantised tensor, else the type of its input.
    built: the type that its kernel reads. "none": the log shows no kernel for it. "unknown": the log does not tell.
    """

    name: str
    asked: str
    built: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """Precision of an engine's convolutions.

    convolutions: in the order of the network.
    kernels: how many an inference launches.
    float32_writes: how many times a kernel writes a feature map (more than one row and column) in float32.
    """

    convolutions: tuple[AuditedConvolution, ...]
    kernels: Annotated[int, Meta(ge=0)]
    float32_writes: Annotated[int, Meta(ge=0)]

    @property
    def mismatches(self) -> tuple[AuditedConvolution, ...]:
        """The convolutions that are not what was asked for."""
        return tuple(item for item in self.convolutions if item.built != item.asked)

    def faults(self, precision: str) -> list[str]:
        """Where an engine falls short of a graph's precision ("float32", "float16", "int8"): a line for each
        convolution, by name, whether the builder or the graph itself is at fault."""
        faults = [
            f"{item.name} was asked to be {item.asked} and is {item.built}"
            if item.built != item.asked
            else f"{item.name} is {item.built} in the graph, expected {' or '.join(_ALLOWED[precision])}"
            for item in self.convolutions
            if item.built != item.asked or item.built not in _ALLOWED[precision]
        ]
        if not faults and all(item.built != precision for item in self.convolutions):
            faults.append(f"no convolution is {precision}")
        return faults

    def check(self, precision: str) -> None:
        """Raise EngineError when there are faults, naming them all."""
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
        """A line for each convolution: what was asked for and what was built."""
        width = max((len(item.name) for item in self.convolutions), default=0)
        head = f"{'convolution':<{width}}  {'asked':<8}  built"
        return "\n".join([head, *(f"{i.name:<{width}}  {i.asked:<8}  {i.built}" for i in self.convolutions)])


def audit_log(asked: Mapping[str, str], log: Iterable[str]) -> Audit:
    """Read an audit off a build log.

    asked: the type that each convolution is to have, by layer name, in order.
    log: messages of a build with DETAILED profiling verbosity.
    """
    built: dict[str, str] = {}
    kernels = float32_writes = 0
    for match in filter(None, map(_LAYER.search, log)):
        if match["type"] in _NO_KERNEL:
            continue
        kernels += 1
        parts = _parts(match["rest"])
        float32_writes += sum(
            _type(tensor["type"]) == "float32" and _is_map(tensor["sides"])
            for tensor in _TENSOR.finditer(parts.get("Outputs", ""))
        )
        source = _TENSOR.search(parts.get("Inputs", ""))
        weights = _WEIGHTS.search(match["rest"])
        kind = _type(source["type"]) if source else "unknown"
        if kind == "unknown" and weights:
            kind = _type(weights["type"])
        for name in match["name"].split(_FUSED):
            built.setdefault(_COMPILED.sub("", name), kind)
    convolutions = tuple(AuditedConvolution(name, kind, built.get(name, "none")) for name, kind in asked.items())
    return Audit(convolutions, kernels, float32_writes)


def _type(text: str) -> str:
    return next((name for name, words in _TYPES.items() if words.search(text)), "unknown")


def _parts(text: str) -> dict[str, str]:
    """The lists of a layer by name. A list ends where the next one, or the tactic, begins."""
    marks = list(_PART.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark[1]: text[mark.end() : end] for mark, end in zip(marks, ends, strict=True) if mark[1]}


def _is_map(sides: str) -> bool:
    """Whether these are N, C, H, W, with H and W free or above 1."""
    numbers = [int(side) for side in sides.split(",") if side.strip().lstrip("-").isdecimal()]
    return len(numbers) == 4 and all(side != 1 for side in numbers[2:])
