"""Whether this machine's INT8 kernels compute what the graph says.

On x86 CPUs without VNNI, ONNX Runtime multiplies uint8 by int8 with instructions that add pairs of products in 16 bits
and saturate (onnxruntime.ai, "Quantize ONNX models", on U8S8 and saturation). The picture breaks without an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import is_engine
from cisi_runtime.errors import CpuError, GraphError, OutputError
from cisi_runtime.files import atomic_file, cache_folder, make_private_folder
from cisi_runtime.parity.compare import TOLERANCES, compare, run_case, tolerance
from cisi_runtime.parity.golden import golden_path, load_golden

_CPU_INFO = Path("/proc/cpuinfo")
# Environment variables that hold OpenVINO at older instructions than the CPU has.
_INSTRUCTION_SETS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def check_on_this_cpu(backend: Backend, graph: Path) -> str | None:
    """Run the first golden case of an INT8 graph. Graphs of another precision and engines are not checked.

    A check that was passed is remembered, for these two files, this CPU and this version of the backend.

    Returns a warning when the check is not possible: no golden file beside the graph, or none of its size. Raises
    CpuError when the result is further from the reference than INT8 may be, GraphError for a golden file that is
    damaged or of other weights.
    """
    if backend.contract.precision != "int8" or is_engine(graph):
        return None
    path = golden_path(graph)
    if not path.exists():
        return f"{graph}: its golden file {path.name} is not beside it, so this CPU could not be checked"
    record = _record(backend, graph, path)
    if record is not None and _is_recorded(record):
        return None
    golden = load_golden(path)
    if golden.weights_sha256 != backend.contract.weights_sha256:
        raise GraphError(f"{path}: belongs to other weights than {graph}, expected the golden file of its export")
    case = golden.cases[0]
    if not backend.fixed.accepts(case.image.shape):
        return f"{path}: holds no picture of the size that {graph} takes, so this CPU could not be checked"
    result = run_case(backend, case.image, case.hole_mask)
    comparison = compare("int8 on this CPU", case, result, tolerance("int8", case))
    if not comparison.passed:
        raise CpuError(
            f"{graph}: on this CPU it is {comparison.hole_psnr_db:.1f} dB from the reference, expected "
            f"{comparison.tolerance}; a CPU without VNNI saturates: cisi-calibrate --reduce-range, or run the float32 "
            "graph"
        )
    if record is not None:
        _remember(record, f"{graph.name}: {comparison.hole_psnr_db:.1f} dB, {comparison.tolerance} required\n")
    return None


def _record(backend: Backend, graph: Path, golden: Path) -> Path | None:
    """Where it is remembered that a check was passed: a file named after all that its result depends on. None where
    that is not known: the CPU, or the version of the backend."""
    version = getattr(sys.modules.get(backend.name), "__version__", None)
    if version is None or not _CPU_INFO.is_file():
        return None
    facts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (graph, golden)]
    facts += [backend.name, version, platform.machine(), *_cpu_facts(), str(TOLERANCES["int8"])]
    facts += [f"{name}={os.environ.get(name, '')}" for name in _INSTRUCTION_SETS]
    return cache_folder() / "checks" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:32]


def _cpu_facts() -> list[str]:
    """Model and instruction sets, of the first core."""
    lines = _CPU_INFO.read_text().split("\n\n")[0].splitlines()
    return [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]


def _remember(record: Path, text: str) -> None:
    # Where that is not possible the check runs again next time.
    with contextlib.suppress(OutputError):
        make_private_folder(record.parent)
        with atomic_file(record) as temporary:
            temporary.write_text(text)


def _is_recorded(path: Path) -> bool:
    if not os.path.isfile(path):  # noqa: PTH113 (`Path.is_file` raises for another user's folder)
        return False
    try:
        # What another user could have written is not believed.
        make_private_folder(path.parent)
    except OutputError:
        return False
    return True
