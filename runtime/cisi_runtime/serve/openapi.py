"""The service's interface as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from cisi_runtime.pictures.writing import FORMATS

_PROBLEM = "application/problem+json"
# Statuses that any request for work may get, and what they mean.
_REFUSALS = {
    "400": "The request cannot be read.",
    "401": "A token is needed.",
    "413": "Too many bytes or too many pixels.",
    "415": "Not a picture that can be read, or another kind of body than expected.",
    "422": "The mask or a field is wrong; the sizes are in `detail`.",
    "429": "The queue is full; `Retry-After` says when to come back.",
    "500": "A fault of the service; its log has the request's id.",
    "502": "The process that worked on it ended.",
    "503": "The service is starting or ending.",
    "504": "Not done within the deadline.",
}


def openapi_document(version: str) -> dict[str, Any]:
    """Paths, forms and answers. version: of the service."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cisi-serve",
            "version": version,
            "summary": "Fills holes in photographs.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": {
            "/inpaint": {"post": _inpaint("Complete a photograph", ("image", "mask"))},
            "/photographs": {"post": _upload()},
            "/photographs/{id}": {"parameters": [_ID], "delete": _forget()},
            "/photographs/{id}/inpaint": {
                "parameters": [_ID],
                "post": _inpaint("Complete a photograph that was uploaded before", ("mask",)),
            },
            "/photographs/{id}/preview": {"parameters": [_ID], "get": _preview()},
            "/limits": {"get": _plain("What the service takes", "limits", open_to_all=True)},
            "/healthz": {"get": _plain("Whether the process answers", "health", open_to_all=True)},
            "/readyz": {"get": _plain("Whether work is taken", "ready", open_to_all=True, or_503=True)},
            "/metrics": {"get": _metrics()},
            "/api/v1/inpaint": {"post": _iopaint()},
            "/v2/models/cisi": {"get": _plain("KServe: inputs and outputs of the network", "metadata")},
            "/v2/models/cisi/config": {"get": _plain("KServe: its configuration, with the contract", "configuration")},
            "/v2/models/cisi/ready": {"get": _plain("KServe: whether it takes work", "modelReady", or_503=True)},
            "/v2/models/cisi/infer": {"post": _infer()},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _PROBLEM_SCHEMA, "Photograph": _PHOTOGRAPH_SCHEMA, "Completed": _COMPLETED_SCHEMA},
            "responses": {
                status: {
                    "description": text,
                    "content": {_PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
                    **({"headers": {"Retry-After": _header("Seconds.", "integer")}} if status == "429" else {}),
                }
                for status, text in _REFUSALS.items()
            },
        },
    }


_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "image": {**_FILE, "description": "JPEG, PNG, WebP, TIFF, AVIF or BMP, 8 bits a channel."},
    "mask": {**_FILE, "description": "White (128 and above) is the hole; the size of the upright photograph."},
    "mask_from_alpha": {"type": "boolean", "default": False, "description": "Instead: what is transparent."},
    "invert_mask": {"type": "boolean", "default": False, "description": "Black is the hole."},
    "dilate": {"type": "integer", "minimum": 0, "default": 0, "description": "Pixels by which the hole grows."},
    "detail": {"type": "boolean", "default": True, "description": "Texture from around the hole."},
    "format": {"enum": [name.lower() for name in FORMATS], "description": "Default: that of the photograph."},
}
_PROBLEM_SCHEMA = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "reason", "detail", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "reason": {"type": "string", "description": "One of few words, for programs."},
        "detail": {"type": "string", "description": "A sentence for people."},
        "error": {"type": "string", "description": "The same, where KServe's clients look for it."},
        "request_id": {"type": "string"},
    },
}
_PHOTOGRAPH_SCHEMA = {
    "type": "object",
    "required": ["id", "width", "height", "format", "media_type", "bytes", "expires_s"],
    "properties": {
        "id": {"type": "string"},
        "width": {"type": "integer", "description": "Of the upright picture, as of its mask."},
        "height": {"type": "integer"},
        "format": {"type": "string"},
        "media_type": {"type": "string"},
        "bytes": {"type": "integer"},
        "expires_s": {"type": "number", "description": "Seconds without use after which it is forgotten."},
    },
}
_COMPLETED_SCHEMA = {
    "type": "object",
    "required": ["format", "media_type", "width", "height", "hole", "largest_change", "not_kept", "report", "image"],
    "properties": {
        "format": {"type": "string"},
        "media_type": {"type": "string"},
        "width": {"type": "integer"},
        "height": {"type": "integer"},
        "hole": {"type": "number", "description": "Share of the picture that was filled."},
        "largest_change": {"type": "integer", "description": "Of a known pixel, in grey levels, by a lossy format."},
        "not_kept": {"type": "array", "items": {"type": "string"}},
        "report": {"type": "string"},
        "notes": {"type": "array", "items": {"type": "string"}},
        "milliseconds": {"type": "object", "additionalProperties": {"type": "number"}},
        "image": {"type": "string", "contentEncoding": "base64"},
    },
}


def _header(text: str, kind: str = "string") -> dict[str, Any]:
    return {"description": text, "schema": {"type": kind}}


def _refusals(*statuses: str) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses or _REFUSALS}


def _inpaint(summary: str, files: tuple[str, ...]) -> dict[str, Any]:
    fields = {name: value for name, value in _FORM.items() if name in files or name not in ("image", "mask")}
    headers = {
        "CISI-Format": _header("Format of the file."),
        "CISI-Hole": _header("Share of the picture that was filled.", "number"),
        "CISI-Largest-Change": _header("Of a known pixel, in grey levels, by a lossy format.", "integer"),
        "CISI-Not-Kept": _header("What the photograph's file held and this one does not; percent-encoded."),
        "CISI-Report": _header("A sentence for people; percent-encoded."),
        "CISI-Notes": _header("More for people; percent-encoded."),
        "CISI-Photograph": _header("The name under which the result is kept, of a photograph that was."),
        "Server-Timing": _header("Milliseconds by stage."),
    }
    done = {
        "description": "The completed file; as JSON with `Accept: application/json`.",
        "headers": headers,
        "content": {
            "image/*": {"schema": _FILE},
            "application/json": {"schema": {"$ref": "#/components/schemas/Completed"}},
        },
    }
    return {
        "summary": summary,
        "operationId": "inpaint" if "image" in files else "inpaintKept",
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": fields,
                        "required": [files[0]] if "image" in files else [],
                    }
                }
            },
        },
        "responses": {"200": done, **_refusals()},
    }


def _upload() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"image": _FORM["image"]}, "required": ["image"]}
    kept = {
        "description": "Kept for a while.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Photograph"}}},
    }
    return {
        "summary": "Upload a photograph once, to send masks for it",
        "operationId": "upload",
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}},
        "responses": {"201": kept, **_refusals("400", "401", "413", "415", "422", "429")},
    }


def _forget() -> dict[str, Any]:
    return {
        "summary": "Forget an uploaded photograph",
        "operationId": "forget",
        "responses": {"204": {"description": "Forgotten."}, **_refusals("401")},
    }


def _preview() -> dict[str, Any]:
    return {
        "summary": "The upright pixels of an uploaded photograph",
        "operationId": "preview",
        "responses": {"200": {"description": "PNG.", "content": {"image/png": {"schema": _FILE}}}, **_refusals()},
    }


def _plain(summary: str, identity: str, *, open_to_all: bool = False, or_503: bool = False) -> dict[str, Any]:
    answer = {"content": {"application/json": {"schema": {"type": "object"}}}}
    responses = {"200": {"description": "Yes." if or_503 else "JSON.", **answer}}
    if or_503:
        responses["503"] = {"description": "Not now.", **answer}
    return {
        "summary": summary,
        "operationId": identity,
        "responses": responses if open_to_all else {**responses, **_refusals("401")},
        **({"security": [{}]} if open_to_all else {}),
    }


def _metrics() -> dict[str, Any]:
    answer = {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"summary": "Metrics", "operationId": "metrics", "responses": {"200": answer, **_refusals("401")}}


def _iopaint() -> dict[str, Any]:
    text = {"type": "string", "contentEncoding": "base64"}
    schema = {"type": "object", "properties": {"image": text, "mask": text}, "required": ["image", "mask"]}
    return {
        "summary": "Complete a photograph, by IOPaint's interface",
        "operationId": "iopaintInpaint",
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "PNG.", "content": {"image/png": {"schema": _FILE}}}, **_refusals()},
    }


def _infer() -> dict[str, Any]:
    content = {
        "application/json": {"schema": {"type": "object"}},
        "application/octet-stream": {"schema": _FILE},
    }
    return {
        "summary": "KServe: arrays through the network",
        "operationId": "infer",
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "The completed arrays.", "content": content}, **_refusals()},
    }
