"""What the package ships: weights, graph, golden file, model card."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from cisi_calibration.model_contract import exporter_versions, record_of, sealed_bytes
from cisi_calibration.quantisation import quantise
from cisi_calibration.table import load_table
from cisi_export.exporting import float_graph
from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.registry import SHIPPED_GRAPH, SHIPPED_INT8_GRAPH
from cisi_runtime.errors import CpuError
from cisi_runtime.export_record import ExportRecord
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.metrics import hole_quality
from cisi_runtime.parity.checks import check_parity
from cisi_runtime.parity.golden import golden_path, load_golden
from cisi_runtime.pictures.masks import centre_hole
from cisi_runtime.pictures.reading import read_picture
from cisi_runtime.pictures.resizing import crop_centre, resize_short_side
from cisi_train.checkpoint import load_checkpoint
from cisi_train.evaluate import baseline_method
from tests.support.networks import PHOTOS

CHECKPOINT = SHIPPED_GRAPH.with_suffix(".pt")


@pytest.mark.slow
def test_the_graph_is_what_the_checkpoint_exports_to() -> None:
    model = float_graph(load_checkpoint(CHECKPOINT), precision="float32", target="cpu", face="uint8")
    # The versions in constraints.txt give these bytes.
    record = ExportRecord(exporter_versions(), load_golden(golden_path(SHIPPED_GRAPH)).sha256)
    assert sealed_bytes(model, record) == SHIPPED_GRAPH.read_bytes()


@pytest.mark.parametrize("graph", [SHIPPED_GRAPH, SHIPPED_INT8_GRAPH])
def test_the_graph_passes_its_golden_file(graph: Path) -> None:
    report = check_parity(graph)
    assert report.passed, report.table() + report.summary()
    assert len(report.structure) == (1 if graph == SHIPPED_GRAPH else 2)


def test_the_int8_graph_is_what_its_ranges_and_its_placement_give() -> None:
    table = load_table(SHIPPED_GRAPH.with_name("small.ranges.json"))
    placed = record_of(onnx.load(SHIPPED_INT8_GRAPH))
    assert placed is not None
    quantised = quantise(onnx.load(SHIPPED_GRAPH), None, table, placed.kept_float)
    golden = load_golden(golden_path(SHIPPED_GRAPH))
    record = ExportRecord(exporter_versions(), golden.sha256, kept_float=placed.kept_float)
    assert sealed_bytes(quantised, record, table.to_json()) == SHIPPED_INT8_GRAPH.read_bytes()


@pytest.mark.parametrize("backend", ["auto", "openvino", "onnxruntime"])
def test_what_runs_by_default(backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs openvino: pip install 'cisi-net[openvino]'")
    with Inpainter(backend=backend, threads=1) as inpaint:
        assert inpaint.backend.precision == "int8"
        assert inpaint.model == SHIPPED_INT8_GRAPH
        assert inpaint.backend_reason.startswith("small.int8.cpu.onnx: ")
        assert inpaint.warning is None


def test_float32_runs_where_int8_fails_its_check_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def saturated(_backend: Backend, graph: Path) -> None:
        if graph == SHIPPED_INT8_GRAPH:
            raise CpuError("on this CPU it is 12.0 dB from the reference")

    monkeypatch.setattr("cisi_runtime.inpainting.model.check_on_this_cpu", saturated)
    with Inpainter(threads=1) as inpaint:
        assert inpaint.backend.precision == "float32"
        assert inpaint.backend_reason.startswith("small.onnx: onnxruntime on the CPU")
        assert inpaint.backend_reason.endswith("; not INT8: on this CPU it is 12.0 dB from the reference")
    # A graph that was asked for is not exchanged for another one.
    with pytest.raises(CpuError, match=r"12\.0 dB"):
        Inpainter(SHIPPED_INT8_GRAPH, threads=1)


def test_it_fills_better_than_a_flat_colour() -> None:
    inpaint = Inpainter(OnnxRuntimeBackend(SHIPPED_GRAPH))
    hole = centre_hole(256, 256)
    quality = {"network": [], "mean": []}
    for path in sorted(PHOTOS.glob("*.jpg")):
        truth = crop_centre(resize_short_side(read_picture(path).rgb, 256), 256)
        quality["network"].append(hole_quality(inpaint(truth, hole), truth, hole).psnr_db)
        quality["mean"].append(hole_quality(baseline_method("mean")(truth, hole), truth, hole).psnr_db)
    assert np.mean(quality["network"]) > np.mean(quality["mean"]) + 1.0


def test_provenance_is_stated() -> None:
    provenance = load_checkpoint(CHECKPOINT).contract.provenance
    assert provenance.data
    assert "CC BY" in provenance.data_licence
    folder = SHIPPED_GRAPH.parent
    card = (folder / "MODEL_CARD.md").read_text()
    assert str(provenance.steps) in card.replace(",", "")
    attribution = (folder / "ATTRIBUTION.tsv").read_text().splitlines()
    assert len(attribution) == 1 + provenance.images + 60  # header, training pictures, held-out pictures
    assert all(len(line.split("\t")) == 3 for line in attribution)
    # The photographs are those that are credited: more training on them counts as training on the same data.
    names = sorted(Path(line.split("\t")[0]).with_suffix("").as_posix() for line in attribution[1:])
    assert hashlib.sha256("\n".join(names).encode()).hexdigest() == provenance.data_sha256


def test_every_tracked_file_of_the_folder_has_a_purpose() -> None:
    names = {path.name for path in Path(SHIPPED_GRAPH.parent).iterdir()}
    assert names == {
        "small.pt",
        "small.onnx",
        "small.int8.cpu.onnx",
        "small.ranges.json",
        "small.golden.npz",
        "MODEL_CARD.md",
        "ATTRIBUTION.tsv",
    }
