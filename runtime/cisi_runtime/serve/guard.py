"""What stands before every handler: request ids, the token, the host, errors as problem details, log and metrics."""

from __future__ import annotations

import contextlib
import dataclasses
import hmac
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cisi_runtime.serve.monitoring import Metrics
from cisi_runtime.serve.outgoing import ClientTooSlowError, Outgoing
from cisi_runtime.serve.refusals import NO_ANSWER, RefusalError
from cisi_runtime.serve.tracing import Tracing

_LOG = logging.getLogger("cisi.serve")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Paths that need no token: probes, and the page, which asks for the token.
_OPEN = re.compile(r"/|/page/.*|/favicon\.ico|/healthz|/readyz|/limits|/openapi\.json|/v2/health/(live|ready)")
# Whoever knows the name of a photograph may look at it: logs and traces have its first characters alone.
_NAME_OF_PHOTOGRAPH = re.compile(r"^(/photographs/[^/]{6})[^/]+")
_HOST_PORT = re.compile(r":\d+$")
_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may ask. token: that requests must bear; None: none is needed. hosts: names that the service may be called
    by; None: any."""

    token: str | None = None
    hosts: frozenset[str] | None = None


class Guard:
    """ASGI middleware around the whole service.

    routes: for metrics, the name of the route that a path belongs to.
    outgoing: sends answers.
    tracing: None for none.

    open_requests: that have not been answered, probes left out.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        metrics: Metrics,
        *,
        routes: Mapping[str, str],
        outgoing: Outgoing,
        tracing: Tracing | None,
    ) -> None:
        self._app, self._access, self._metrics = app, access, metrics
        self._outgoing, self._tracing = outgoing, tracing
        self.open_requests = 0
        self._routes = [(re.compile(pattern), name) for pattern, name in routes.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        # Handlers add what log and trace should say of the request.
        said: dict[str, Any] = {
            "request_id": given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8),
            "method": scope["method"],
            "path": _NAME_OF_PHOTOGRAPH.sub(r"\1...", scope["path"]),
        }
        scope["state"] = {**scope.get("state", {}), "said": said}
        route = next((name for pattern, name in self._routes if pattern.fullmatch(scope["path"])), "other")
        start = time.perf_counter()
        is_work = route not in ("probe", "page")
        self.open_requests += is_work
        with self._span(route, headers, said):
            try:
                await self._answer(scope, headers, receive, send, said)
            finally:
                self.open_requests -= is_work
                seconds = time.perf_counter() - start
                status = said.setdefault("status", NO_ANSWER)
                said["milliseconds"] = round(1000.0 * seconds, 1)
                self._metrics.requests.labels(route, status).inc()
                self._metrics.seconds.labels(route).observe(seconds)
                _LOG.log(logging.DEBUG if route == "probe" else logging.INFO, "request", extra=said)

    def _span(self, route: str, headers: Headers, said: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
        if self._tracing is None or route == "probe":
            return contextlib.nullcontext()
        return self._tracing.span(route, headers, said)

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send, said: dict[str, Any]) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                said["status"] = message["status"]
                answer = MutableHeaders(scope=message)
                answer["X-Request-ID"] = said["request_id"]
                for name, value in _SECURITY.items():
                    answer.setdefault(name, value)
            await self._outgoing.send(message, send, scope.get("client"))

        try:
            self._check(scope, headers)
            await self._app(scope, receive, send_guarded)
        except RefusalError as refusal:
            await self._refuse(refusal, scope, receive, send_guarded)
        except HTTPException as error:
            await self._refuse(_of_starlette(error, scope), scope, receive, send_guarded)
        except ClientTooSlowError:
            said["reason"] = "client-too-slow"
            raise  # the connection has been broken
        except Exception as error:
            _LOG.exception("failed", extra={"request_id": said["request_id"]})
            detail = f"{type(error).__name__}: the log has request {said['request_id']}"
            await self._refuse(RefusalError(500, "failed", detail), scope, receive, send_guarded)

    def _check(self, scope: Scope, headers: Headers) -> None:
        hosts = self._access.hosts
        host = _HOST_PORT.sub("", headers.get("host", "")).lower()
        # Browsers always send it.
        if hosts is not None and host and host not in hosts:
            # Another name that resolves to this machine: a page of another site, by DNS rebinding.
            raise RefusalError(421, "wrong-host", f"Host: got {host!r}, expected {' or '.join(sorted(hosts))}")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and headers.get("sec-fetch-site") == "cross-site":
            raise RefusalError(
                403, "cross-site", "a page of another site sent this request, expected the service's own"
            )
        if self._access.token is None or _OPEN.fullmatch(scope["path"]):
            return
        kind, _, token = headers.get("authorization", "").partition(" ")
        # Of bytes, because of str only ASCII can be compared in constant time.
        same = hmac.compare_digest(token.strip().encode(), self._access.token.encode())
        if kind.lower() != "bearer" or not same:
            raise RefusalError(401, "no-token", "Authorization: expected Bearer and the service's token")

    async def _refuse(self, refusal: RefusalError, scope: Scope, receive: Receive, send: Send) -> None:
        said = scope["state"]["said"]
        self._metrics.refusals.labels(refusal.reason).inc()
        said |= {"reason": refusal.reason, "detail": refusal.detail}
        if refusal.status == NO_ANSWER:
            return
        if "status" in said:
            raise refusal  # the answer had begun: all that is left is to close the connection
        # What is left of the body is not read, so the connection cannot be used again.
        headers = {"Connection": "close"} if scope["method"] not in ("GET", "HEAD") else {}
        headers |= refusal.headers
        if refusal.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        await refusal.response(said["request_id"], headers)(scope, receive, send)


def _of_starlette(error: HTTPException, scope: Scope) -> RefusalError:
    if error.status_code == 404:
        return RefusalError(404, "unknown-path", f"{scope['path']}: no such path; /openapi.json lists them")
    if error.status_code == 405:
        detail = f"{scope['method']}: {scope['path']} does not take this method"
        return RefusalError(405, "wrong-method", detail, headers=dict(error.headers or {}))
    return RefusalError(error.status_code, "failed", str(error.detail))
