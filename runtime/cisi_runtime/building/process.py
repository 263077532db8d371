"""One engine from one graph, built in a process of its own (see `worker`)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cisi_runtime.engines.audit import Audit
from cisi_runtime.engines.options import BuildOptions, choose_flavour
from cisi_runtime.errors import EngineError
from cisi_runtime.strict_json import convert

# Called with the current phase of a build, the step that is done, and the number of steps (0: unknown).
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class BuiltEngine:
    """An engine in memory.

    engine: its bytes.
    audit: the precision of its convolutions.
    version: of the library that built it.
    seconds: how long that took.
    timing_cache: what TensorRT has measured, for its next build. Empty with TensorRT-RTX, where it has no effect.
    """

    engine: bytes
    audit: Audit
    version: str
    seconds: float
    timing_cache: bytes


def build_engine(
    graph: Path, options: BuildOptions, *, timing_cache: Path | None = None, progress: Progress | None = None
) -> BuiltEngine:
    """Build an engine with the types that the graph has. Writes nothing.

    timing_cache: TensorRT's file of earlier measurements, read if it exists. The building process ends when this one
    does, or is interrupted. Raises EngineError with TensorRT's reasons, and when the library is not installed.
    """
    if not graph.is_file():
        raise EngineError(f"{graph}: no such file")
    choose_flavour(options.flavour)
    order = {
        "graph": str(graph),
        "options": dataclasses.asdict(options),
        "timing_cache": str(timing_cache) if timing_cache else "",
    }
    start = time.perf_counter()
    with tempfile.TemporaryFile() as errors, _worker(errors) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(order).encode() + b"\n")
            process.stdin.flush()
        result: dict[str, Any] | None = None
        for line in process.stdout:
            message = json.loads(line)
            if "audit" in message:
                result = message
                break
            if progress is not None:
                progress(message["phase"], message["step"], message["steps"])
        engine = process.stdout.read(result["engine"]) if result else b""
        cache = process.stdout.read(result["timing_cache"]) if result else b""
        process.stdin.close()
        status = process.wait()
        if result is None or len(engine) != result["engine"] or len(cache) != result["timing_cache"]:
            errors.seek(0)
            reason = " ".join(errors.read().decode(errors="replace").split())
            ended = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
            raise EngineError(
                f"{graph}: no engine for {options.target}: {reason or f'the building process ended with {ended}'}"
            )
    audit = convert(result["audit"], Audit, "audit", EngineError)
    return BuiltEngine(engine, audit, result["version"], time.perf_counter() - start, cache)


@contextlib.contextmanager
def _worker(errors: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A building process, ended with the block. It has a session of its own, so that Ctrl-C reaches only this process,
    which then ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cisi_runtime.building.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
