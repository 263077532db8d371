"""What the package ships: weights, graph, golden file, model card."""

from pathlib import Path

import numpy as np
import pytest

from cisi_export.exporting import GraphOptions, export_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.metrics import hole_quality
from cisi_runtime.parity.checks import check_graph_parity
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
    result = export_graph(load_checkpoint(CHECKPOINT), GraphOptions())
    assert result.parity.failures == 0
    # The versions in constraints.txt give these bytes.
    assert result.model.SerializeToString(deterministic=True) == SHIPPED_GRAPH.read_bytes()


def test_the_graph_passes_its_golden_file() -> None:
    golden = load_golden(golden_path(SHIPPED_GRAPH))
    assert all(item.passed for item in check_graph_parity(SHIPPED_GRAPH, golden))


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


def test_every_tracked_file_of_the_folder_has_a_purpose() -> None:
    names = {path.name for path in Path(SHIPPED_GRAPH.parent).iterdir()}
    assert names == {"small.pt", "small.onnx", "small.golden.npz", "MODEL_CARD.md", "ATTRIBUTION.tsv"}
