from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from cisi_export.emulate import emulate_float16
from cisi_runtime.parity.checks import check_graph_parity, cpu_runnable
from cisi_runtime.parity.golden import golden_path, load_golden


def root_mean_square_in_float16() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["half", "half"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["mean"], keepdims=0),
        helper.make_node("Sqrt", ["mean"], ["root"]),
        helper.make_node("Cast", ["root"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "rms",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray, *, optimise: bool) -> float:
    options = onnxruntime.SessionOptions()
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("optimise", [False, True])
def test_overflow_is_seen_where_the_cpu_provider_hides_it(optimise: bool) -> None:
    x = np.array([867, 300, 2, 1], dtype=np.float32)
    model = root_mean_square_in_float16()
    assert run(emulate_float16(model), x, optimise=optimise) == np.inf
    # Why the emulation is there: ONNX Runtime 1.31 quietly computes the same graph in float32.
    assert np.isfinite(run(model, x, optimise=optimise))


def test_values_are_those_of_float16() -> None:
    x = np.array([0.1, 0.2, 0.3, 10.0], dtype=np.float32)
    square = x.astype(np.float16) * x.astype(np.float16)
    expected = np.sqrt(np.float16(square.astype(np.float32).mean()))
    assert run(emulate_float16(root_mean_square_in_float16()), x, optimise=False) == float(expected)


def test_a_whole_graph(tiny_graphs: dict[tuple[str, str, str], Path]) -> None:
    path = tiny_graphs["float16", "tensorrt", "uint8"]
    emulated = onnx.load_from_string(cpu_runnable(path).serialised())
    half = {initialiser.name for initialiser in emulated.graph.initializer if initialiser.data_type == 10}
    assert not half
    comparisons = check_graph_parity(path, load_golden(golden_path(path)))
    assert len(comparisons) == 2 * 12
    assert all(comparison.passed for comparison in comparisons)
    # It does round: in float32 the figures are above 75 dB. (One pixel can hit the very level.)
    assert (
        max(comparison.hole_psnr_db for comparison in comparisons if comparison.case not in ("one pixel", "no hole"))
        < 72
    )
