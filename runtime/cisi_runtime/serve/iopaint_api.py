"""The interface of IOPaint that its plug-ins for Krita and others use, so that they work with this service unchanged.

Source: github.com/Sanster/IOPaint, `iopaint/api.py` and `iopaint/schema.py`, version 1.x: pictures are base64, with or
without `data:…;base64,` before them; the answer is a PNG file and repeats the seed in `X-Seed`. The request's many
options for diffusion models have no meaning for this network and are ignored, as IOPaint ignores them for LaMa.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cisi_runtime.batch.photograph import EncodedPicture, PhotographOptions
from cisi_runtime.serve.handling import Handling
from cisi_runtime.serve.photograph_process import InpaintTask
from cisi_runtime.serve.refusals import RefusalError

_SPACE = re.compile(r"\s")
_MODEL = {
    "name": "cisi",
    "path": "cisi",
    "model_type": "inpaint",
    "is_single_file_diffusers": False,
    "need_prompt": False,
    "controlnets": [],
    "brushnets": [],
    "support_strength": False,
    "support_outpainting": False,
    "support_lcm_lora": False,
    "support_controlnet": False,
    "support_brushnet": False,
    "support_powerpaint_v2": False,
}


class _Request(msgspec.Struct):
    image: str
    mask: str
    sd_seed: float = 42


class IopaintApi:
    """Handlers of `/api/v1`."""

    def __init__(self, handling: Handling) -> None:
        self._handling = handling

    async def model(self, _request: Request) -> Response:
        """The model that answers."""
        return JSONResponse(_MODEL)

    async def configuration(self, _request: Request) -> Response:
        """What the service offers of what IOPaint has: one model, no plug-ins."""
        return JSONResponse(
            {
                "plugins": [],
                "modelInfos": [_MODEL],
                "removeBGModels": [],
                "realesrganModels": [],
                "interactiveSegModels": [],
                "enableFileManager": False,
                "enableAutoSaving": False,
                "enableControlnet": False,
                "disableModelSwitch": True,
                "isDesktop": False,
                "samplers": [],
            }
        )

    async def inpaint(self, request: Request) -> Response:
        """A photograph and a mask in, a PNG file out."""
        async with self._handling.bodies.body(request) as body:
            image, mask, seed = await asyncio.to_thread(_decode, body)
            head = await self._handling.head_of(image)
            options = PhotographOptions(max_pixels=self._handling.limits.max_pixels)
            task = InpaintTask(image, mask, options, output_format="PNG")
            outcome = await self._handling.inpaint(request, task, head)
        return Response(outcome.data, media_type="image/png", headers={"X-Seed": str(seed)})


def _decode(body: bytes) -> tuple[EncodedPicture, EncodedPicture, int]:
    """Image, mask and seed. Raises RefusalError."""
    try:
        asked = msgspec.json.decode(body, type=_Request)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise RefusalError(422, "wrong-request", f"expected JSON with image and mask: {error}") from error
    return _decoded(asked.image, "image"), _decoded(asked.mask, "mask"), int(asked.sd_seed)


def _decoded(text: str, name: str) -> EncodedPicture:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        # Some encoders break lines.
        text = "".join(text.split()) if _SPACE.search(text) else text
        return EncodedPicture(base64.b64decode(text, validate=True), name)
    except (binascii.Error, ValueError) as error:
        raise RefusalError(422, "wrong-field", f"{name}: expected base64: {error}") from error
