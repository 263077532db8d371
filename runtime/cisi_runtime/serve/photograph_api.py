"""The service's own interface: photographs and masks as files."""

from __future__ import annotations

import base64
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cisi_runtime.batch.photograph import EncodedPicture
from cisi_runtime.pictures.reading import PictureHead
from cisi_runtime.pictures.writing import FORMATS
from cisi_runtime.serve.forms import read_fields
from cisi_runtime.serve.handling import Handling, header_text
from cisi_runtime.serve.photograph_process import InpaintOutcome
from cisi_runtime.serve.refusals import RefusalError

# Media types by Pillow's names.
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "BMP": "image/bmp",
}


class PhotographApi:
    """Handlers of `/inpaint`, `/photographs` and `/limits`."""

    def __init__(self, handling: Handling, *, version: str, needs_token: bool) -> None:
        self._handling, self._version, self._needs_token = handling, version, needs_token

    async def limits(self, _request: Request) -> Response:
        """What the service takes."""
        limits = self._handling.limits
        return JSONResponse(
            {
                "version": self._version,
                "max_bytes": limits.max_bytes,
                "max_megapixels": limits.max_megapixels,
                "formats": list(FORMATS),
                "needs_token": self._needs_token,
                "deadline_s": limits.deadline_s,
            }
        )

    async def inpaint(self, request: Request) -> Response:
        """A photograph and a mask in, the completed file out."""
        async with self._handling.bodies.form(request) as form:
            fields = read_fields(form, self._handling.limits, files=("image", "mask"))
            image = form.files["image"]
            head = await self._handling.head_of(image)
            outcome = await self._handling.inpaint(request, fields.task(image), head)
        return _answer(request, outcome)

    async def upload(self, request: Request) -> Response:
        """Keep a photograph for masks to come."""
        async with self._handling.bodies.form(request) as form:
            wrong = [name for name in (*form.files, *form.texts) if name != "image"]
            if wrong or "image" not in form.files:
                raise RefusalError(422, "wrong-field", f"expected one file image, got {', '.join(wrong) or 'nothing'}")
            self._handling.check_open()
            image = form.files["image"]
            head = await self._handling.head_of(image)
            name = self._handling.sessions.add(image, head)
        values = {
            "id": name,
            "width": head.width,
            "height": head.height,
            "format": head.format,
            "media_type": MEDIA_TYPES[head.format],
            "bytes": len(image.data),
            "expires_s": self._handling.sessions.seconds,
        }
        return JSONResponse(values, 201, {"Location": f"/photographs/{name}", "Cache-Control": "no-store"})

    async def inpaint_kept(self, request: Request) -> Response:
        """A mask for a photograph that was uploaded before; the result is kept too."""
        stored = self._handling.sessions.get(request.path_params["name"])
        async with self._handling.bodies.form(request) as form:
            fields = read_fields(form, self._handling.limits, files=("mask",))
            outcome = await self._handling.inpaint(request, fields.task(stored.image), stored.head)
        head = PictureHead(outcome.width, outcome.height, outcome.format)
        name = self._handling.sessions.add(EncodedPicture(outcome.data, stored.image.name), head)
        return _answer(request, outcome, {"CISI-Photograph": name})

    async def preview(self, request: Request) -> Response:
        """The upright pixels of an uploaded photograph as PNG, for browsers that cannot show its format."""
        stored = self._handling.sessions.get(request.path_params["name"])
        data = await self._handling.preview(request, stored.image, stored.head)
        return Response(data, media_type="image/png", headers={"Cache-Control": "no-store"})

    async def forget(self, request: Request) -> Response:
        """Drop an uploaded photograph."""
        self._handling.sessions.remove(request.path_params["name"])
        return Response(status_code=204)


def _answer(request: Request, outcome: InpaintOutcome, more: dict[str, str] | None = None) -> Response:
    """The completed file with what there is to know in headers, or both as JSON where the client asks for that."""
    stages = ", ".join(f"{stage.replace(' ', '-')};dur={time:.1f}" for stage, time in outcome.milliseconds.items())
    headers = {
        **(more or {}),
        "Cache-Control": "no-store",
        "CISI-Format": outcome.format,
        "CISI-Hole": f"{outcome.hole:.6f}",
        "CISI-Largest-Change": str(outcome.change),
        "CISI-Report": header_text(outcome.report),
        "Server-Timing": stages,
    }
    if outcome.dropped:
        headers["CISI-Not-Kept"] = header_text(", ".join(outcome.dropped))
    if outcome.notes:
        headers["CISI-Notes"] = header_text("; ".join(outcome.notes))
    media_type = MEDIA_TYPES[outcome.format]
    if "application/json" not in request.headers.get("accept", ""):
        return Response(outcome.data, media_type=media_type, headers=headers)
    return _as_json(outcome, media_type, headers)


def _as_json(outcome: InpaintOutcome, media_type: str, headers: dict[str, str]) -> Response:
    values: dict[str, Any] = {
        "format": outcome.format,
        "media_type": media_type,
        "width": outcome.width,
        "height": outcome.height,
        "hole": outcome.hole,
        "largest_change": outcome.change,
        "not_kept": list(outcome.dropped),
        "report": outcome.report,
        "notes": list(outcome.notes),
        "milliseconds": {stage: round(time, 2) for stage, time in outcome.milliseconds.items()},
    }
    # Base64 needs no escapes; of a large file the JSON encoder would make several copies.
    head = json.dumps(values).removesuffix("}").encode()
    data = b"".join([head, b', "image": "', base64.b64encode(outcome.data), b'"}'])
    return Response(data, media_type="application/json", headers=headers)
