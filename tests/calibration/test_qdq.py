"""Where Q/DQ stands in the two graphs, and that the graphs are still the network."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from cisi_calibration.convolutions import candidates, convolutions
from cisi_calibration.model_contract import contract_of, set_contract
from cisi_calibration.photographs import choose_photographs
from cisi_calibration.quantisation import check_float_graph, check_fp16_graph, quantise
from cisi_calibration.table import RangeTable, observe
from cisi_export.onnx_graph import check_model
from cisi_export.weight_check import compare_weights
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.errors import GraphError
from cisi_runtime.parity.checks import graph_variants
from cisi_runtime.parity.compare import compare_backend
from cisi_runtime.parity.golden import golden_path, load_golden
from cisi_train.checkpoint import load_checkpoint

KEPT_FLOAT = "decoder.up.1.conv"


@pytest.fixture(scope="module")
def models(tiny_graphs: dict[tuple[str, str, str], Path]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    return onnx.load(tiny_graphs["float32", "cpu", "uint8"]), onnx.load(tiny_graphs["float16", "tensorrt", "uint8"])


@pytest.fixture(scope="module")
def table(models: tuple[onnx.ModelProto, onnx.ModelProto], photo_folder: Path) -> RangeTable:
    return observe(models[0], choose_photographs(photo_folder, 8), "mse")


@pytest.fixture(scope="module")
def placed(models: tuple[onnx.ModelProto, onnx.ModelProto], table: RangeTable) -> dict[str, onnx.ModelProto]:
    model, half = models
    return {
        "cpu": quantise(model, None, table, [KEPT_FLOAT]),
        "tensorrt": quantise(model, half, table, [KEPT_FLOAT]),
        "reduced": quantise(model, None, table, [], reduce_range=True),
    }


def parts(model: onnx.ModelProto) -> tuple[dict[str, onnx.TensorProto], dict[str, onnx.NodeProto]]:
    stored = {item.name: item for item in model.graph.initializer}
    return stored, {name: node for node in model.graph.node for name in node.output}


def int8_convolutions(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    _, producers = parts(model)
    return [n for n in model.graph.node if n.op_type == "Conv" and n.input[1] in producers]


def test_candidates_of_both_targets_have_the_same_names(models: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    model, half = models
    assert [name.replace("to_rgb.conv", "to_rgb") for name in convolutions(model)] == list(convolutions(half))
    assert len(convolutions(model)) == 28
    high = {"inferred_content.down.0.conv", "style.convs.0", "decoder.to_rgb"}
    assert list(candidates(model, "cpu")) == list(convolutions(model))
    style = {f"style.convs.{index}" for index in range(1, 5)}
    assert set(convolutions(half)) - set(candidates(half, "tensorrt")) == high | style


@pytest.mark.parametrize(("target", "count"), [("cpu", 27), ("tensorrt", 20), ("reduced", 28)])
def test_weights_are_int8_for_each_channel_and_biases_float(
    placed: dict[str, onnx.ModelProto], target: str, count: int
) -> None:
    model = placed[target]
    check_model(model)
    stored, producers = parts(model)
    quantised_nodes = int8_convolutions(model)
    assert len(quantised_nodes) == count
    for node in quantised_nodes:
        weight = producers[node.input[1]]
        assert stored[weight.input[0]].data_type == onnx.TensorProto.INT8
        assert list(stored[weight.input[1]].dims) == [stored[weight.input[0]].dims[0]]
        assert not onnx.numpy_helper.to_array(stored[weight.input[2]]).any()
        assert producers[node.input[0]].op_type == "DequantizeLinear"
        if len(node.input) == 3:
            assert stored[node.input[2]].data_type == onnx.TensorProto.FLOAT
    largest = max(
        np.abs(onnx.numpy_helper.to_array(stored[producers[node.input[1]].input[0]]).astype(int)).max()
        for node in quantised_nodes
    )
    assert largest == (64 if target == "reduced" else 127) or (target == "reduced" and largest == 63)
    activations = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    kinds = Counter(stored[node.input[2]].data_type for node in activations)
    assert set(kinds) == {onnx.TensorProto.INT8 if target == "tensorrt" else onnx.TensorProto.UINT8}


def test_tensorrt_keeps_residuals_and_statistics_out_of_it(placed: dict[str, onnx.ModelProto]) -> None:
    model = placed["tensorrt"]
    stored, producers = parts(model)
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    sides: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] in stored:
            continue
        quantise = producers[node.input[0]]
        assert onnx.numpy_helper.to_array(stored[quantise.input[1]]).dtype == np.float32
        assert not onnx.numpy_helper.to_array(stored[quantise.input[2]]).any()
        after = {reader.op_type for reader in readers[node.output[0]]}
        if after == {"Conv"}:
            sides["input"] += 1
        else:
            # Behind a convolution, straight into the float32 statistics of its norm.
            sides["output"] += 1
            assert producers[quantise.input[0]].op_type == "Conv"
            assert after == {"ReduceMean", "Sub"}
    assert sides == {"input": 20, "output": 19}  # no norm follows the first upsampling
    # The float16 convolutions are as they were, and only the INT8 ones compute in another type.
    half = [item for item in stored.values() if item.data_type == onnx.TensorProto.FLOAT16 and len(item.dims) == 4]
    assert len(half) == 28 - 20


@pytest.mark.parametrize("target", ["cpu", "tensorrt", "reduced"])
def test_weights_are_the_checkpoints(
    placed: dict[str, onnx.ModelProto], tiny_checkpoint_path: Path, target: str
) -> None:
    weights = {name: value.numpy() for name, value in load_checkpoint(tiny_checkpoint_path).weights.items()}
    lines = compare_weights(placed[target], weights)
    assert sum(line.stored_as == "int8" for line in lines) == {"cpu": 27, "tensorrt": 20, "reduced": 28}[target]
    assert [line for line in lines if not line.passed] == []
    assert max(line.worst for line in lines if line.stored_as == "int8") > 0.5  # rounding was seen


def test_weights_that_are_not_the_checkpoints(
    placed: dict[str, onnx.ModelProto], tiny_checkpoint_path: Path, tiny_graph: Path
) -> None:
    weights = {name: value.numpy() for name, value in load_checkpoint(tiny_checkpoint_path).weights.items()}
    wrong = onnx.ModelProto()
    wrong.CopyFrom(placed["cpu"])
    name = "decoder.blocks.1.conv2.weight"
    (item,) = (item for item in wrong.graph.initializer if item.name == f"generator.{name}_quantized")
    array = onnx.numpy_helper.to_array(item).copy()
    array.flat[77] -= np.sign(array.flat[77]) * 2  # two steps in one weight: nobody sees that in a picture
    item.CopyFrom(onnx.numpy_helper.from_array(array, item.name))
    assert [line.name for line in compare_weights(wrong, weights) if not line.passed] == [name]
    # All zeros, under a scale so coarse that it would explain them.
    item.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(array), item.name))
    (scale,) = (item for item in wrong.graph.initializer if item.name == f"generator.{name}_scale")
    largest = np.abs(weights[name]).max(axis=(1, 2, 3))
    scale.CopyFrom(onnx.numpy_helper.from_array((2.1 * largest).astype(np.float32), scale.name))
    assert [line.name for line in compare_weights(wrong, weights) if not line.passed] == [name]
    only_says = onnx.load(tiny_graph)
    only_says.metadata_props[0].CopyFrom(placed["cpu"].metadata_props[0])
    (bad,) = (line for line in compare_weights(only_says, weights) if not line.passed)
    assert bad.stored_as == "float32, but the contract says int8"


@pytest.mark.parametrize("target", ["cpu", "tensorrt", "reduced"])
def test_graphs_run_and_keep_known_pixels(placed: dict[str, onnx.ModelProto], tiny_graph: Path, target: str) -> None:
    golden = load_golden(golden_path(tiny_graph))
    with graph_variants(placed[target].SerializeToString()) as variants:
        for name, backend in variants:
            assert name.startswith("ONNX int8")
            assert ("emulated" in name) == (target == "tensorrt")
            # INT8 leaves about 20 dB of random weights. The budget of 35 dB is for trained ones.
            for comparison in compare_backend(name, backend, golden, "int8"):
                assert comparison.finite
                assert comparison.known_identical
                assert comparison.hole_psnr_db > 15.0 or comparison.case in ("one pixel", "all hole")


def test_int8_for_tensorrt_is_not_run_on_a_cpu_as_it_is(placed: dict[str, onnx.ModelProto]) -> None:
    with pytest.raises(GraphError, match="holds float16"):
        OnnxRuntimeBackend(placed["tensorrt"].SerializeToString())


def test_graphs_that_cannot_be_quantised(
    models: tuple[onnx.ModelProto, onnx.ModelProto], placed: dict[str, onnx.ModelProto]
) -> None:
    model, half = models
    check_float_graph(model)
    check_fp16_graph(half, model)

    def changed(source: onnx.ModelProto, change: Callable[[onnx.ModelProto], object]) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        change(copy)
        return copy

    def other_weights(m: onnx.ModelProto) -> None:
        set_contract(m, dataclasses.replace(contract_of(m), weights_sha256="2" * 64))

    def one_size(m: onnx.ModelProto) -> None:
        m.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 128

    def no_weight(m: onnx.ModelProto) -> None:
        names = [item.name for item in m.graph.initializer]
        del m.graph.initializer[names.index("generator.decoder.to_rgb.conv.weight")]

    def optimised(m: onnx.ModelProto) -> None:
        conv = next(node for node in m.graph.node if node.op_type == "Conv")
        conv.op_type, conv.domain = "FusedConv", "com.microsoft"

    for bad, message in (
        (placed["cpu"], "quantised or optimised already"),
        (changed(model, optimised), r"optimised already \(it holds FusedConv"),
        (changed(model, no_weight), "the weights of .* are not in the graph"),
        (half, "is the float16 graph of the tensorrt lowering, expected the float32 graph"),
        (changed(model, one_size), "takes one size or batch only"),
        (changed(model, lambda m: m.metadata_props.pop(0)), "has no CISI-net contract"),
    ):
        with pytest.raises(GraphError, match=message):
            check_float_graph(bad)
    for bad, message in (
        (model, "is the float32 graph of the cpu lowering, expected the float16 graph"),
        (placed["tensorrt"], "quantised or optimised already"),
        (changed(half, other_weights), "comes from other weights"),
        (changed(half, one_size), "takes one size or batch only"),
    ):
        with pytest.raises(GraphError, match=message):
            check_fp16_graph(bad, model)
