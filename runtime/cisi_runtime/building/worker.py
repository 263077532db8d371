"""The process that builds one engine. `process.build_engine` starts it.

Each engine gets a process of its own. After a failed build TensorRT-RTX silently builds the next engine of the same
process for the target of the failed one, and a library that crashes takes nothing else with it. The process writes no
file: messages, engine and timing cache go through the pipe, so a build that is killed leaves nothing behind.

stdin: a line of JSON, then nothing until the parent is done or dead.
stdout: lines of JSON. `{"phase", "step", "steps"}` while it works, finally `{"audit", "version", "engine",
"timing_cache"}`, where the last two are byte counts; then the bytes of engine and timing cache.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

from cisi_runtime.engines.audit import Audit, audit_log
from cisi_runtime.engines.options import FLAVOURS, BuildOptions
from cisi_runtime.errors import EngineError
from cisi_runtime.face import FACES
from cisi_runtime.strict_json import convert

# Seconds between two messages about progress.
_INTERVAL_S = 0.1
# Depth to which nested phases are named. Deeper ones come and go too quickly to be read.
_MAX_DEPTH = 2


def _build(graph: bytes, options: BuildOptions, timing_cache: bytes, out: BinaryIO) -> tuple[Audit, str, bytes, bytes]:
    trt = importlib.import_module(FLAVOURS[options.flavour][0])

    class Log(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.extend(message.splitlines())
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    class Progress(trt.IProgressMonitor):  # type: ignore[name-defined,misc]
        """Reports to the parent which phases are open and how far the innermost one is."""

        def __init__(self) -> None:
            super().__init__()
            self._open: dict[str, int] = {}
            self._last_report = 0.0

        def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
            self._open[phase] = steps

        def step_complete(self, phase: str, step: int) -> bool:
            now = time.monotonic()
            if now - self._last_report > _INTERVAL_S:
                self._last_report = now
                name = " / ".join(list(self._open)[:_MAX_DEPTH])
                _send(out, {"phase": name, "step": step + 1, "steps": self._open.get(phase, 0)})
            return True

        def phase_finish(self, phase: str) -> None:
            self._open.pop(phase, None)

    log = Log()
    builder = trt.Builder(log)
    flags = trt.NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(graph):
        raise EngineError("; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    # The variable keeps it alive; the config does not.
    progress = Progress()
    config.progress_monitor = progress
    (config.set_flag if options.tf32 else config.clear_flag)(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.builder_optimization_level = options.level
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    if options.flavour == "tensorrt-rtx":
        config.num_compute_capabilities = len(options.capabilities)
        for index, capability in enumerate(options.capabilities):
            name = "SM" + capability.replace(".", "")
            if not config.set_compute_capability(getattr(trt.ComputeCapability, name), index):
                raise EngineError(f"SM {capability}: TensorRT-RTX {trt.__version__} refuses this target")
    else:
        _set_timing_cache(config, timing_cache)
    _set_profile(builder, network, config, options, trt)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError("; ".join(log.errors) or "the builder returned nothing")
    cache = bytes(config.get_timing_cache().serialize()) if options.flavour == "tensorrt" else b""
    return audit_log(_asked(network, trt), log.lines), trt.__version__, bytes(engine), cache


def _set_timing_cache(config: Any, content: bytes) -> None:
    """Use a timing cache. One of another version or GPU is refused; then a new one is begun and replaces it."""
    for start in (content, b""):
        cache = config.create_timing_cache(start)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _set_profile(builder: Any, network: Any, config: Any, options: BuildOptions, trt: Any) -> None:
    """Give the inputs that take several sizes, if there are any, the smallest, best and largest of them."""
    profile, is_free = builder.create_optimization_profile(), False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        face = FACES["uint8" if tensor.dtype == trt.uint8 else "tensor"]
        if -1 in tensor.shape:
            is_free = True
            profile.set_shape(
                tensor.name, *(face.input_shapes(size.sides)[tensor.name] for size in options.profile.sizes)
            )
    if is_free:
        config.add_optimization_profile(profile)


def _asked(network: Any, trt: Any) -> dict[str, str]:
    """The type that each convolution of a network is to compute in."""
    names = {trt.float32: "float32", trt.float16: "float16", trt.bfloat16: "bfloat16"}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    dequantised = {layer.get_output(0).name for layer in layers if layer.type == trt.LayerType.DEQUANTIZE}
    asked: dict[str, str] = {}
    for layer in layers:
        if layer.type == trt.LayerType.CONVOLUTION:
            source = layer.get_input(0)
            asked[layer.name] = "int8" if source.name in dequantised else names.get(source.dtype, str(source.dtype))
    return asked


def _send(out: BinaryIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message).encode() + b"\n")
    out.flush()


def _die_with_the_parent() -> None:
    """End this process when the parent is gone. The parent writes nothing more, so the read returns only then. It does
    not go through `sys.stdin`, whose lock the interpreter needs when it ends."""
    os.read(0, 1)
    os._exit(1)


def _line(descriptor: int) -> bytes:
    parts = []
    while (part := os.read(descriptor, 1)) not in (b"", b"\n"):
        parts.append(part)
    return b"".join(parts)


def main() -> None:
    """Build what the line on stdin asks for."""
    # What libraries print goes to stderr, out of the way of the messages.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    order = json.loads(_line(0))
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    cache = Path(order["timing_cache"])
    try:
        audit, version, engine, timing_cache = _build(
            Path(order["graph"]).read_bytes(),
            convert(order["options"], BuildOptions, "options", EngineError),
            cache.read_bytes() if order["timing_cache"] and cache.is_file() else b"",
            out,
        )
    except EngineError as error:
        sys.exit(str(error))
    result = {"audit": dataclasses.asdict(audit), "version": version}
    _send(out, result | {"engine": len(engine), "timing_cache": len(timing_cache)})
    out.write(engine)
    out.write(timing_cache)
    out.flush()


if __name__ == "__main__":
    main()
