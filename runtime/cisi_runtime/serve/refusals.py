"""Why a request gets no result, as an HTTP status, a reason for programs and a sentence for people."""

from __future__ import annotations

import http
import math

from starlette.responses import JSONResponse

from cisi_runtime.errors import CisiError, MaskError, OutputError, PictureError, TooManyPixelsError

MEDIA_TYPE = "application/problem+json"
# What the log and the metrics say of a request whose client went away, as nginx does. It is never sent.
NO_ANSWER = 499
# Titles of RFC 9110 where Python's older releases have those of its predecessors.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}


class RefusalError(Exception):
    """A request that is answered with an error.

    reason: one of few words, for programs and metrics. detail: what was expected. retry_after_s: when to come back.
    headers: more of them.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = headers or {}
        self.status, self.reason, self.detail = status, reason, detail
        self.retry_after_s = retry_after_s

    def response(self, request_id: str, headers: dict[str, str] | None = None) -> JSONResponse:
        """As problem details (RFC 9457). `error` repeats the sentence where KServe's clients look for it."""
        headers = dict(headers or {})
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        body = {
            "type": "about:blank",
            "title": _TITLES.get(self.status) or http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "reason": self.reason,
            "detail": self.detail,
            "error": self.detail,
            "request_id": request_id,
        }
        return JSONResponse(body, self.status, headers, media_type=MEDIA_TYPE)


def refusal_of(error: CisiError) -> RefusalError:
    """The refusal for an error that reading, filling or writing a photograph raised."""
    if isinstance(error, TooManyPixelsError):
        return RefusalError(413, "too-many-pixels", str(error))
    if isinstance(error, MaskError):
        return RefusalError(422, "wrong-mask", str(error))
    if isinstance(error, PictureError):
        return RefusalError(415, "not-a-picture", str(error))
    if isinstance(error, OutputError):
        return RefusalError(422, "wrong-field", str(error))
    return RefusalError(500, "failed", str(error))
