"""Engines of preset paper, built and audited without a GPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from cisi_calibration.convolutions import candidates
from cisi_calibration.model_contract import exporter_versions
from cisi_calibration.observation import observed_tensors
from cisi_calibration.quantisation import quantise
from cisi_calibration.table import Range, RangeTable
from cisi_export.cost import cost_of
from cisi_export.exporting import float_graph
from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.building.compare_engines import EngineComparison
from cisi_runtime.building.make import make_engine
from cisi_runtime.building.process import build_engine
from cisi_runtime.contract import Contract
from cisi_runtime.engines.audit import Audit, AuditedConvolution, audit_log
from cisi_runtime.engines.options import BuildOptions
from cisi_runtime.engines.sidecar import load_engine
from cisi_runtime.errors import EngineError
from cisi_runtime.export_record import ExportRecord
from cisi_train.checkpoint import load_checkpoint, save_checkpoint
from cisi_train.network import Generator
from tests.support.networks import provenance, roughen
from tests.support.shared import shared_folder

pytestmark = pytest.mark.slow

Graphs = dict[str, Path]
# Ampere, Ada and Blackwell: what people have.
CAPABILITIES_TESTED = ("8.6", "8.9", "12.0")
ADA = BuildOptions(capabilities=("8.9",))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    """Preset paper, random weights, three precisions. What the ranges are changes no kernel: none were observed."""
    pytest.importorskip("tensorrt_rtx", reason="needs tensorrt_rtx: pip install 'cisi-net[rtx]'")
    folder = shared_folder(tmp_path_factory, "paper", write_graphs)
    return {name: folder / f"{name}.onnx" for name in ("float32", "float16", "int8")}


def write_graphs(folder: Path) -> None:
    torch.manual_seed(5)
    generator = Generator(PRESETS["paper"])
    roughen(generator)
    contract = Contract(PRESETS["paper"], provenance())
    save_checkpoint(folder / "paper.pt", contract, generator.state_dict(), configuration={})
    checkpoint = load_checkpoint(folder / "paper.pt")
    model = float_graph(checkpoint, precision="float32", target="cpu", face="uint8")
    fp16_graph = float_graph(checkpoint, precision="float16", target="tensorrt", face="uint8")
    ranges = dict.fromkeys(observed_tensors(model), Range((-2.0, 2.0), 2.0))
    table = RangeTable(checkpoint.contract.weights_sha256, "none", 0, "", ranges)
    full = float_graph(checkpoint, precision="float32", target="tensorrt", face="uint8")
    models = {"float32": full, "cpu": model, "float16": fp16_graph, "int8": quantise(model, fp16_graph, table, [])}
    for name, value in models.items():
        (folder / f"{name}.onnx").write_bytes(value.SerializeToString())


@pytest.fixture(autouse=True)
def _of_no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """These graphs have no golden file, whose reference takes minutes for preset paper, and so no seal."""
    record = ExportRecord(exporter_versions(), "0" * 64)
    monkeypatch.setattr("cisi_runtime.building.make.require_as_exported", lambda *_: record)


@pytest.mark.parametrize("capability", CAPABILITIES_TESTED)
def test_every_convolution_is_what_was_asked(
    graphs: Graphs,
    capability: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.setenv("CISI_CACHE", str(tmp_path / "cache"))
    audits = {name: audit_of(path, capability, tmp_path / f"{name}.engine") for name, path in graphs.items()}
    float16, int8 = audits["float16"], audits["int8"]
    assert {item.built for item in audits["float32"].convolutions} == {"float32"}
    assert {item.built for item in float16.convolutions} == {"float16"}
    assert len(float16.convolutions) == len(int8.convolutions) == 28
    assert float16.mismatches == int8.mismatches == ()
    assert sum(item.built == "int8" for item in int8.convolutions) == 21
    assert sum(item.built == "float16" for item in int8.convolutions) == 7
    # An INT8 engine with more kernels than the float16 one is no gain.
    comparison = EngineComparison(float16, int8)
    comparison.check()
    record_property("summary", f"SM {capability}: {comparison}")


def audit_of(graph: Path, capability: str, engine: Path) -> Audit:
    """Build an engine for one kind of card, and read it back with its sidecar."""
    made = make_engine(graph, engine, BuildOptions(capabilities=(capability,)))
    data, sidecar = load_engine(engine)
    assert len(data) > graph.stat().st_size // 2
    assert sidecar == made.sidecar
    assert (sidecar.contract.precision, sidecar.options.capabilities) == (graph.stem, (capability,))
    return sidecar.audit


def test_what_part_of_the_arithmetic_is_int8(graphs: Graphs) -> None:
    model = onnx.load(graphs["int8"])
    cost = cost_of(model, read_graph(graphs["int8"]).contract, 256, 256)
    int8 = sum(item.flop for item in cost.convolutions if item.precision == "int8")
    assert int8 / cost.flop == pytest.approx(0.875, abs=0.001)
    style = sum(item.flop for item in cost.convolutions if item.name.startswith("style."))
    assert style / cost.flop == pytest.approx(0.103, abs=0.001)


def test_style_in_int8_takes_more_kernels(graphs: Graphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why the style encoder stays in float16."""
    import cisi_calibration.convolutions as rule

    monkeypatch.setattr(rule, "_STYLE", "no such module")
    fp16_graph = onnx.load(graphs["float16"])
    assert len(candidates(fp16_graph, "tensorrt")) == 25
    model = onnx.load(graphs["float16"].with_name("cpu.onnx"))
    ranges = dict.fromkeys(observed_tensors(model), Range((-2.0, 2.0), 2.0))
    table = RangeTable(read_graph(graphs["int8"]).contract.weights_sha256, "none", 0, "", ranges)
    path = tmp_path / "all.onnx"
    path.write_bytes(quantise(model, fp16_graph, table, []).SerializeToString())
    everything = build_engine(path, ADA).audit
    assert everything.mismatches == ()
    float16_audit = build_engine(graphs["float16"], ADA).audit
    with pytest.raises(EngineError, match="more kernels than float16: INT8 is no gain"):
        EngineComparison(float16_audit, everything).check()


def test_the_audit_finds_convolutions_that_are_not_what_was_asked(graphs: Graphs, tmp_path: Path) -> None:
    """A graph in which half of the convolutions were quietly left in float32, though its contract says INT8."""
    model = onnx.load(graphs["int8"])
    asked = build_engine(graphs["int8"], ADA).audit.convolutions
    producers = {name: node for node in model.graph.node for name in node.output}
    stripped = []
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] in producers and len(stripped) < 10:
            quantise = producers[producers[node.input[0]].input[0]]
            node.input[0] = quantise.input[0]
            dequantise = producers[node.input[1]]
            arrays = {item.name: onnx.numpy_helper.to_array(item) for item in model.graph.initializer}
            scale = arrays[dequantise.input[1]].reshape(-1, 1, 1, 1)
            weight = (arrays[dequantise.input[0]] * scale).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(weight, f"{node.name}/float"))
            node.input[1] = f"{node.name}/float"
            stripped.append(node.name)
    (tmp_path / "stripped.onnx").write_bytes(model.SerializeToString())
    audit = build_engine(tmp_path / "stripped.onnx", ADA).audit
    types = {item.name: item.built for item in audit.convolutions}
    wrong = [item.name for item in asked if types[item.name] != item.asked]
    assert wrong == stripped
    assert {types[name] for name in stripped} == {"float32"}
    assert [fault.split()[0] for fault in audit.faults("int8")] == stripped
    with pytest.raises(EngineError, match="audit failed: 10 of 28 convolutions are not what int8 asks for") as error:
        make_engine(tmp_path / "stripped.onnx", tmp_path / "stripped.engine", ADA, use_cache=False)
    assert all(name in str(error.value) for name in stripped)
    assert [path.name for path in tmp_path.iterdir()] == ["stripped.onnx"]


def test_an_audit_by_hand() -> None:
    def tensor(sides: str, kind: str) -> str:
        return f"{{ Name: t, Dimensions: [{sides}], Strides: [1], Datatype: {kind}, Format: x }}"

    def line(name: str, kind: str, read: str, written: str) -> str:
        constant = tensor("8,8,3,3", "Int8")
        start = f"Name: {name}, LayerType: {kind}, Inputs: [ {read}], Constants: [ {constant}], Outputs: [ {written}], "
        return start + "TacticName: , StreamId: 0, Metadata: "

    log = [
        "[V] something else",
        line("one_myl0_3", "correlation", tensor("-1,8,-1,-1", "Int8"), tensor("-1,8,-1,-1", "Float")),
        line("two_myl0_4", "correlation", tensor("-1,8,-1,-1", "Half"), tensor("-1,8,-1,-1", "Half")),
        line("__myl_Mean_myl0_5", "kgen", tensor("-1,8,-1,-1", "Float"), tensor("-1,8,1,1", "Float")),
        line("__mye1_myl0_6", "wait", "", ""),
    ]
    audit = audit_log({"one": "int8", "two": "int8", "three": "float16"}, log)
    assert (audit.kernels, audit.float32_writes) == (3, 1)
    assert [item.built for item in audit.convolutions] == ["int8", "float16", "none"]
    assert [item.name for item in audit.mismatches] == ["two", "three"]
    with pytest.raises(EngineError, match="two was asked to be int8 and is float16"):
        EngineComparison(audit_log({}, []), audit).check()
    assert (
        audit_log({"one": "float16"}, [line("zero + one", "CaskConvolution", tensor("1,8,9,9", "Half"), "")]).mismatches
        == ()
    )


def test_the_words_of_tensorrt_10() -> None:
    start = "Name: one + relu, LayerType: CaskConvolution, "
    half = "Format/Datatype: Channel major FP16 format where C % 8 == 0"
    known = (
        start
        + f"Inputs: [ {{ Name: x, Location: Device, Dimensions: [1,64,9,9], {half} }}], Outputs: [], TacticName: t"
    )
    assert audit_log({"one": "float16"}, [known]).mismatches == ()
    free = (
        "Inputs: [ { Name: x, Dimensions: [-1,64,-1,-1], Format/Datatype: N/A due to dynamic shapes }], Outputs: [], "
    )
    weights = "ParameterType: Convolution, Weights: { Type: Int8, Count: 9 }, TacticName: t"
    assert audit_log({"one": "int8"}, [start + free + weights]).mismatches == ()
    (unread,) = audit_log({"one": "int8"}, [start + free]).mismatches
    assert unread.built == "unknown"


def test_faults_by_hand() -> None:
    def audit(*types: str) -> Audit:
        return Audit(tuple(AuditedConvolution(f"c{i}", kind, kind) for i, kind in enumerate(types)), 9, 0)

    assert audit("int8", "float16").faults("int8") == []
    assert audit("float16", "float16").faults("int8") == ["no convolution is int8"]
    assert audit("float16", "float32").faults("float16") == ["c1 is float32 in the graph, expected float16"]
    assert audit("int8", "float32").faults("int8") == ["c1 is float32 in the graph, expected int8 or float16"]
    assert audit("float32").faults("float32") == []
    unknown = Audit((AuditedConvolution("c", "float16", "none"),), 9, 0)
    assert unknown.faults("float16") == ["c was asked to be float16 and is none"]


def test_a_graph_that_cannot_be_built_leaves_nothing(graphs: Graphs, tmp_path: Path) -> None:
    model = onnx.load(graphs["float16"])
    next(node for node in model.graph.node if node.op_type == "Conv").op_type = "Convolution"
    (tmp_path / "bad.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match=r"bad.onnx: no engine for SM 8.9: .*Plugin not found") as error:
        build_engine(tmp_path / "bad.onnx", ADA)
    assert "Fatal Python error" not in str(error.value)
    with pytest.raises(EngineError, match="SM 9.0: TensorRT-RTX has no such target here, expected 8.0, 8.6, 8.9"):
        BuildOptions(capabilities=("9.0",))
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]
