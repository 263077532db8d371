"""CISI-net as a node of ComfyUI. A file in its `custom_nodes` imports the two mappings; see docs/integrations.md.

Torch is not imported: ComfyUI's tensors bring what they are asked for.
https://docs.comfy.org/custom-nodes/backend/server_overview says what a node is,
https://docs.comfy.org/custom-nodes/backend/images_and_masks what IMAGE and MASK are.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, TypeAlias

from cisi_runtime.backends.registry import BACKENDS, DEVICES
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.one_call import file_version

# A torch.Tensor.
_Tensor: TypeAlias = Any
# The side of the mask that ComfyUI's loaders give for a picture without alpha.
_NO_ALPHA = 64
_log = logging.getLogger(__name__)


class CisiNetInpaint:
    """The node. ComfyUI keeps one object for each node of a workflow; it keeps its network open between executions."""

    CATEGORY = "image/inpaint"
    DESCRIPTION = "Fills the masked part of a photograph and changes nothing else."
    FUNCTION = "inpaint"
    RETURN_TYPES = ("IMAGE",)

    def __init__(self) -> None:
        self._opened: tuple[tuple[object, ...], Inpainter] | None = None

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, dict[str, tuple[Any, ...]]]:  # noqa: N802 (the name is ComfyUI's)
        """By required and optional: each input's type, or its choices, and what its widget shows."""
        model = "A graph (.onnx), checkpoint (.pt) or engine on this machine. Empty: the INT8 graph that ships."
        return {
            "required": {
                "image": ("IMAGE", {}),
                "mask": ("MASK", {"tooltip": "Of the image's size. 0.5 and above is filled."}),
            },
            "optional": {
                "detail": ("BOOLEAN", {"default": True, "tooltip": "Texture from around the hole."}),
                "backend": (list(BACKENDS), {"default": "auto", "tooltip": "auto: by the kind of model."}),
                "device": (list(DEVICES), {"default": "auto", "tooltip": "auto: cuda for an engine, else cpu."}),
                "model": ("STRING", {"default": "", "tooltip": model}),
            },
        }

    @classmethod
    def IS_CHANGED(cls, model: str | None = None, **_: object) -> str:  # noqa: N802 (the name is ComfyUI's)
        """Another text when the file of the model was written anew, so that ComfyUI executes the node again.

        model: None where another node gives it, which is not known yet.
        """
        return str(file_version(_path(model or "")))

    def inpaint(
        self,
        image: _Tensor,
        mask: _Tensor,
        detail: bool = True,
        backend: str = "auto",
        device: str = "auto",
        model: str = "",
    ) -> tuple[_Tensor]:
        """Fill the holes; every pixel outside of them is the input's, bit for bit.

        image: float `[B, H, W, C]` with 1, 3 or 4 channels, of which the fourth, alpha, stays as it is. Levels outside
            of [0, 1], which ComfyUI's filters make, count as 0 and 1 where the network looks at them.
        mask: float `[B, H, W]`, one for all images, or `[H, W]`. 0.5 and above is the hole.
        detail, backend, device, model: as of `Inpainter`; an empty model is what ships.

        Returns IMAGE, of the input's shape, type and device. Raises ValueError for tensors that do not fit, and what
        `Inpainter` raises.
        """
        masks = _fitting_masks(image, mask)
        inpainter = self._inpainter(model, backend, device)
        inpainter.detail = detail
        completed = image.detach().clone()
        for index, picture in enumerate(image.detach()):
            levels = masks[index if len(masks) > 1 else 0]
            pixels = inpainter(picture.float().clamp(0, 1).cpu().numpy(), levels.cpu().numpy())
            hole = (levels >= 0.5).to(image.device)
            completed[index, ..., :3][hole] = image.new_tensor(pixels[..., :3])[hole]
        return (completed,)

    def _inpainter(self, model: str, backend: str, device: str) -> Inpainter:
        path = _path(model)
        options = (path, backend, device, file_version(path))
        if self._opened is None or self._opened[0] != options:
            if self._opened is not None:
                self._opened[1].close()
                self._opened = None
            inpainter = Inpainter(path, backend, device=device)
            self._opened = options, inpainter
            # ComfyUI shows them in its console.
            _log.info("CISI-net inpaint: %s", inpainter.backend_reason)
            if inpainter.warning is not None:
                _log.warning("CISI-net inpaint: %s", inpainter.warning)
        return self._opened[1]


def _path(model: str) -> Path | None:
    return Path(model.strip()) if model.strip() else None


def _fitting_masks(image: _Tensor, mask: _Tensor) -> _Tensor:
    """The masks as float32 `[N, H, W]` in [0, 1], N one or the number of images. Raises ValueError."""
    if image.ndim != 4:
        raise ValueError(f"image: expected [B, H, W, C], got {list(image.shape)}")
    masks = mask[None] if mask.ndim == 2 else mask
    if masks.ndim != 3 or len(masks) not in (1, len(image)):
        raise ValueError(
            f"mask: expected [B, H, W] with one mask for all or one for each of {len(image)} images, got "
            f"{list(mask.shape)}"
        )
    (height, width), expected = masks.shape[1:], image.shape[1:3]
    if (height, width) != tuple(expected):
        hint = ""
        if height == width == _NO_ALPHA:
            hint = "; ComfyUI gives this one for a picture without alpha: paint a mask in its mask editor, or load one"
        raise ValueError(f"mask: is {width}x{height} pixels, expected {expected[1]}x{expected[0]} as the image{hint}")
    return masks.detach().float().clamp(0, 1)


NODE_CLASS_MAPPINGS = {"CisiNetInpaint": CisiNetInpaint}
NODE_DISPLAY_NAME_MAPPINGS = {"CisiNetInpaint": "CISI-net inpaint"}
