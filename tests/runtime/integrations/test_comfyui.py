"""The node of ComfyUI: how it is loaded and validated there, and what it does with tensors."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cisi_runtime import Inpainter
from cisi_runtime.backends.registry import BACKENDS, DEVICES, SHIPPED_INT8_GRAPH
from cisi_runtime.errors import GraphError
from cisi_runtime.integrations.comfyui import NODE_CLASS_MAPPINGS, CisiNetInpaint
from tests.support.networks import ROOT

if TYPE_CHECKING:
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'cisi-net[train]'")

Photographs = Callable[..., "torch.Tensor"]


@pytest.fixture(scope="module")
def photographs() -> Photographs:
    def make(batch: int = 1, channels: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """IMAGE `[batch, 70, 90, channels]`, none of whose levels is a multiple of 1/255."""
        generator = torch.Generator().manual_seed(batch)
        return (torch.rand(batch, 70, 90, channels, generator=generator) * 0.99 + 0.0013).to(dtype)

    return make


def holes(*corners: tuple[int, int]) -> torch.Tensor:
    """MASK with one square of 24 pixels each."""
    mask = torch.zeros(len(corners), 70, 90)
    for index, (top, left) in enumerate(corners):
        mask[index, top : top + 24, left : left + 24] = 1
    return mask


def load_as_comfyui(path: Path) -> ModuleType:
    """As `load_custom_node` in ComfyUI's `nodes.py` does."""
    name = str(path.with_suffix("")) if path.is_file() else str(path).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, path if path.is_file() else path / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


@pytest.mark.parametrize("name", ["cisi_net.py", "cisi_net/__init__.py"])
def test_the_line_of_the_documents_registers_the_node(name: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "integrations.md").read_text()
    (line,) = re.findall(r"^from cisi_runtime\.integrations\.comfyui import .*$", page, re.MULTILINE)
    file = tmp_path / "custom_nodes" / name
    file.parent.mkdir(parents=True)
    file.write_text(line + "\n")
    module = load_as_comfyui(tmp_path / "custom_nodes" / name.split("/")[0])
    assert {"CisiNetInpaint": CisiNetInpaint} == module.NODE_CLASS_MAPPINGS
    assert module.NODE_DISPLAY_NAME_MAPPINGS == {"CisiNetInpaint": "CISI-net inpaint"}


def test_the_schema_is_what_comfyui_validates_and_sends_to_its_page() -> None:
    types = CisiNetInpaint.INPUT_TYPES()
    assert set(types) == {"required", "optional"}
    for group in types.values():  # the page gets it as JSON
        assert json.loads(json.dumps(group)) == {name: list(about) for name, about in group.items()}
    inputs = types["required"] | types["optional"]
    parameters = inspect.signature(CisiNetInpaint().inpaint).parameters
    assert set(inputs) == set(parameters)
    for name, (kind, options) in inputs.items():
        # Choices are a list: ComfyUI takes a tuple for the name of a type.
        assert kind in ("IMAGE", "MASK", "STRING", "BOOLEAN") or type(kind) is list, name
        assert isinstance(options, dict)
        # An input that is left out gets the function's default, its widget the schema's.
        is_required = parameters[name].default is inspect.Parameter.empty
        assert is_required == (name in types["required"])
        if not is_required:
            assert options["default"] == parameters[name].default
    assert inputs["backend"][0] == list(BACKENDS)
    assert inputs["device"][0] == list(DEVICES)
    assert callable(getattr(CisiNetInpaint, CisiNetInpaint.FUNCTION))
    assert CisiNetInpaint.RETURN_TYPES == ("IMAGE",)
    assert all(isinstance(text, str) for text in (CisiNetInpaint.CATEGORY, CisiNetInpaint.DESCRIPTION))
    assert all(inspect.isclass(node) for node in NODE_CLASS_MAPPINGS.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_holes_are_filled_and_known_pixels_stay_bit_for_bit(
    dtype: torch.dtype, photographs: Photographs, tiny_graph: Path
) -> None:
    image, mask = photographs(dtype=dtype), holes((20, 30))
    before, hole = image.clone(), mask[0].bool()
    with torch.inference_mode():  # as ComfyUI calls it
        (completed,) = CisiNetInpaint().inpaint(image, mask, detail=False, model=str(tiny_graph))
    assert (completed.shape, completed.dtype, completed.device) == (image.shape, dtype, image.device)
    assert torch.equal(image, before)
    assert torch.equal(completed[0][~hole], image[0][~hole])
    with Inpainter(tiny_graph, detail=False) as inpainter:
        expected = inpainter(image[0].float().numpy(), hole.numpy())
    assert torch.equal(completed[0][hole], torch.from_numpy(expected).to(dtype)[hole])
    assert not torch.equal(completed[0][hole], image[0][hole])


def test_batches_with_a_mask_each_or_one_for_all(photographs: Photographs, tiny_graph: Path) -> None:
    image, node = photographs(3), CisiNetInpaint()
    for masks in (holes((20, 30), (0, 0), (40, 60)), holes((20, 30)), holes((20, 30))[0]):
        (completed,) = node.inpaint(image, masks, model=str(tiny_graph))
        each = masks.expand(3, 70, 90)
        for index in range(3):
            (single,) = node.inpaint(image[index : index + 1], each[index], model=str(tiny_graph))
            assert torch.equal(completed[index], single[0])
            assert not torch.equal(completed[index][each[index].bool()], image[index][each[index].bool()])


def test_soft_masks_are_cut_at_one_half(photographs: Photographs, tiny_graph: Path) -> None:
    image, mask = photographs(), holes((20, 30))
    soft = torch.where(mask > 0, 0.5, 0.49)
    node = CisiNetInpaint()
    assert torch.equal(
        node.inpaint(image, soft, model=str(tiny_graph))[0], node.inpaint(image, mask, model=str(tiny_graph))[0]
    )
    assert torch.equal(node.inpaint(image, mask * 0.49, model=str(tiny_graph))[0], image)


def test_alpha_grey_and_levels_that_overshoot(photographs: Photographs, tiny_graph: Path) -> None:
    mask, node = holes((20, 30)), CisiNetInpaint()
    hole = mask[0].bool()
    for channels in (1, 4):
        image = photographs(channels=channels)
        image[0, :10, :10] = 1.25  # as a bicubic enlargement gives
        image[0, 60:, 80:] = -0.25
        (completed,) = node.inpaint(image, mask, model=str(tiny_graph))
        assert torch.equal(completed[0][~hole], image[0][~hole])
        assert torch.equal(completed[..., 3:], image[..., 3:])
        assert not torch.equal(completed[0][hole], image[0][hole])


def test_tensors_that_do_not_fit_are_refused(photographs: Photographs, tiny_graph: Path) -> None:
    image, node = photographs(2), CisiNetInpaint()
    hint = "ComfyUI gives this one for a picture without alpha: paint a mask in its mask editor, or load one"
    with pytest.raises(ValueError, match=f"^mask: is 64x64 pixels, expected 90x70 as the image; {hint}$"):
        node.inpaint(image, torch.zeros(1, 64, 64))
    with pytest.raises(ValueError, match="^mask: is 70x90 pixels, expected 90x70 as the image$"):
        node.inpaint(image, torch.zeros(1, 90, 70))
    with pytest.raises(ValueError, match=r"one for each of 2 images, got \[3, 70, 90\]"):
        node.inpaint(image, torch.zeros(3, 70, 90))
    with pytest.raises(ValueError, match=r"expected \[B, H, W\] with .* got \[2, 70, 90, 1\]"):
        node.inpaint(image, torch.zeros(2, 70, 90, 1))
    with pytest.raises(ValueError, match=r"image: expected \[B, H, W, C\], got \[70, 90, 3\]"):
        node.inpaint(image[0], torch.zeros(1, 70, 90))
    with pytest.raises(ValueError, match=r"image: expected .* got float32 \(70, 90, 2\)"):
        node.inpaint(image[..., :2], torch.zeros(1, 70, 90), model=str(tiny_graph))
    with pytest.raises(ValueError, match="hole_mask: expected floats .* some NaN"):
        node.inpaint(image, torch.full((1, 70, 90), torch.nan), model=str(tiny_graph))
    with pytest.raises(ValueError, match="image: expected floats .* some NaN"):
        node.inpaint(image * torch.nan, holes((20, 30)), model=str(tiny_graph))


def test_one_network_stays_open_until_another_is_asked_for(
    photographs: Photographs, tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Inpainter] = []
    open_one = Inpainter.__init__

    def count(self: Inpainter, *arguments: Any, **options: Any) -> None:
        open_one(self, *arguments, **options)
        opened.append(self)

    monkeypatch.setattr(Inpainter, "__init__", count)
    graph = tmp_path / "best.onnx"
    graph.write_bytes(tiny_graph.read_bytes())
    image, mask, node = photographs(), holes((20, 30)), CisiNetInpaint()
    (smooth,) = node.inpaint(image, mask, detail=False, model=f" {graph} ")
    (textured,) = node.inpaint(image, mask, detail=True, model=str(graph))
    assert len(opened) == 1
    assert not torch.equal(smooth, textured)
    node.inpaint(image, mask, backend="onnxruntime", model=str(graph))
    os.utime(graph, ns=(1, 1))  # written anew
    changed = CisiNetInpaint.IS_CHANGED(model=str(graph), image=None)
    node.inpaint(image, mask, backend="onnxruntime", model=str(graph))
    assert [inpainter.backend.is_closed for inpainter in opened] == [True, True, False]
    os.utime(graph, ns=(2, 2))
    assert CisiNetInpaint.IS_CHANGED(model=str(graph)) != changed
    assert CisiNetInpaint.IS_CHANGED(model="") == CisiNetInpaint.IS_CHANGED(model=None)
    with pytest.raises(GraphError, match=r"gone\.onnx: no such file"):
        node.inpaint(image, mask, model=str(tmp_path / "gone.onnx"))
    assert opened[-1].backend.is_closed
    node.inpaint(image, mask, model=str(graph))


def test_what_runs_and_what_could_not_be_checked_is_logged_when_a_network_is_opened(
    photographs: Photographs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    graph = tmp_path / "alone.int8.cpu.onnx"
    graph.write_bytes(SHIPPED_INT8_GRAPH.read_bytes())
    image, mask, node = photographs(), torch.zeros(1, 70, 90), CisiNetInpaint()
    with caplog.at_level("INFO", logger="cisi_runtime"):
        node.inpaint(image, mask, model=str(graph))
        node.inpaint(image, mask, model=str(graph))
    reason, warning = (record.getMessage() for record in caplog.records)
    assert reason == "CISI-net inpaint: alone.int8.cpu.onnx: onnxruntime on the CPU, the default for graphs"
    assert "its golden file alone.golden.npz is not beside it" in warning


def test_without_a_model_the_shipped_graph_runs(photographs: Photographs) -> None:
    image, mask = photographs(), holes((20, 30))
    (completed,) = CisiNetInpaint().inpaint(image, mask)
    with Inpainter() as inpainter:
        assert inpainter.model is not None
        assert inpainter.model.parent == SHIPPED_INT8_GRAPH.parent
        expected = inpainter(image[0].numpy(), mask[0].numpy())
    assert np.array_equal(completed[0].numpy(), expected)
