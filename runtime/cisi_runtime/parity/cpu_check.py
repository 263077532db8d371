"""Whether this machine's INT8 kernels compute what the graph says.

On x86 CPUs without VNNI, ONNX Runtime multiplies uint8 by int8 with instructions that add pairs of products in 16 bits
and saturate (onnxruntime.ai, "Quantize ONNX models", on U8S8 and saturation). The picture breaks without an error.
"""

from __future__ import annotations

from pathlib import Path

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import is_engine
from cisi_runtime.errors import GraphError
from cisi_runtime.parity.compare import compare, run_case, tolerance
from cisi_runtime.parity.golden import golden_path, load_golden


def check_on_this_cpu(backend: Backend, graph: Path) -> str | None:
    """Run the first golden case of an INT8 graph. Graphs of another precision and engines are not checked.

    Returns a warning when the check is not possible: no golden file beside the graph, or none of its size. Raises
    GraphError when the result is further from the reference than INT8 may be, and for a golden file that is damaged or
    of other weights.
    """
    if backend.contract.precision != "int8" or is_engine(graph):
        return None
    path = golden_path(graph)
    if not path.exists():
        return f"{graph}: its golden file {path.name} is not beside it, so this CPU could not be checked"
    golden = load_golden(path)
    if golden.weights_sha256 != backend.contract.weights_sha256:
        raise GraphError(f"{path}: belongs to other weights than {graph}, expected the golden file of its export")
    case = golden.cases[0]
    if not backend.fixed.accepts(case.image.shape):
        return f"{path}: holds no picture of the size that {graph} takes, so this CPU could not be checked"
    result = run_case(backend, case.image, case.hole_mask)
    comparison = compare("int8 on this CPU", case, result, tolerance("int8", case))
    if not comparison.passed:
        raise GraphError(
            f"{graph}: on this CPU it is {comparison.hole_psnr_db:.1f} dB from the reference, expected "
            f"{comparison.tolerance}; a CPU without VNNI saturates: cisi-calibrate --reduce-range, or run the float32 "
            "graph"
        )
    return None
