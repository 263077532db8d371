"""One engine from one graph, in a process of its own.

After a failed build TensorRT-RTX silently builds the next one of the same process for the failed one's target; so each
build has a process, this module run as a program.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cisi_runtime.engines.audit import Audit, audit_log
from cisi_runtime.errors import EngineError
from cisi_runtime.files import whole_file

# Compute capabilities that TensorRT-RTX compiles for, without a GPU; 9.0 (H100) is not among them.
CAPABILITIES = ("8.6", "8.9", "12.0")


@dataclasses.dataclass(frozen=True)
class Profile:
    """(batch, height, width) of the smallest, the usual and the largest pictures that an engine takes."""

    least: tuple[int, int, int] = (1, 64, 64)
    usual: tuple[int, int, int] = (1, 256, 256)
    most: tuple[int, int, int] = (4, 512, 512)


def build_engine(graph: Path, out: Path, *, capability: str, profile: Profile | None = None) -> Audit:
    """Build with TensorRT-RTX for a compute capability; TF32 off, types as in the graph. Writes `out` whole or not at
    all. Raises EngineError with TensorRT's reasons, and when the library is not installed.

    profile: of a graph for any size; ignored for one of a single size and batch.
    """
    if capability not in CAPABILITIES:
        raise EngineError(f"SM {capability}: TensorRT-RTX has no such target here, expected {', '.join(CAPABILITIES)}")
    if not graph.is_file():
        raise EngineError(f"{graph}: no such file")
    with whole_file(out) as temporary:
        order = {"graph": str(graph), "out": str(temporary), "capability": capability}
        order["profile"] = dataclasses.asdict(profile or Profile())  # type: ignore[assignment]
        program = [sys.executable, "-m", "cisi_runtime.engines.build", json.dumps(order)]
        result = subprocess.run(program, capture_output=True, text=True, check=False)
        if result.returncode != 0:
            reason = " ".join(result.stderr.split()) or f"the building process ended with {result.returncode}"
            raise EngineError(f"{graph}: no engine for SM {capability}: {reason}")
        return Audit.from_json(json.loads(result.stdout))


def _build(order: dict[str, Any]) -> Audit:
    import tensorrt_rtx as trt

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.extend(message.splitlines())
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(Path(order["graph"]).read_bytes()):
        raise EngineError("; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, "SM" + order["capability"].replace(".", "")), 0)
    shapes = builder.create_optimization_profile()
    is_free = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if -1 in tensor.shape:
            is_free = True
            sizes = (order["profile"][name] for name in ("least", "usual", "most"))
            shapes.set_shape(tensor.name, *(_shape(tensor, tensor.dtype == trt.uint8, *size) for size in sizes))
    if is_free:
        config.add_optimization_profile(shapes)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError("; ".join(log.errors) or "the builder returned nothing")
    Path(order["out"]).write_bytes(engine)
    return audit_log(_asked(network, trt), log.lines)


def _shape(tensor: Any, is_pixels: bool, batch: int, height: int, width: int) -> tuple[int, ...]:
    if is_pixels:
        return (batch, height, width, 3)[: len(tensor.shape)]
    return batch, tensor.shape[1], height, width


def _asked(network: Any, trt: Any) -> dict[str, str]:
    """The type that each convolution of a network is to compute in."""
    names = {trt.float32: "float32", trt.float16: "float16", trt.bfloat16: "bfloat16"}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantised = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    asked: dict[str, str] = {}
    for layer in layers:
        if layer.type == trt.LayerType.CONVOLUTION:
            read = layer.get_input(0)
            asked[layer.name] = "int8" if read.name in dequantised else names.get(read.dtype, str(read.dtype))
    return asked


def _main() -> None:
    try:
        audit = _build(json.loads(sys.argv[1]))
    except EngineError as error:
        sys.exit(str(error))
    except ModuleNotFoundError as error:
        sys.exit(f"needs {error.name}, expected an installation with pip install 'cisi-net[rtx]'")
    print(json.dumps(dataclasses.asdict(audit)))


if __name__ == "__main__":
    _main()
