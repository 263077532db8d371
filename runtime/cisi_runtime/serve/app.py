"""The service as an ASGI application: routes, and what operators ask."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, Router
from starlette.types import Receive, Scope, Send

from cisi_runtime.serve.guard import Access, Guard
from cisi_runtime.serve.handling import Handling
from cisi_runtime.serve.iopaint_api import IopaintApi
from cisi_runtime.serve.kserve_api import KserveApi
from cisi_runtime.serve.openapi import openapi_document
from cisi_runtime.serve.page_files import PageFiles
from cisi_runtime.serve.photograph_api import PhotographApi
from cisi_runtime.serve.tracing import Tracing

# Names of routes in metrics, by what their paths match.
_ROUTE_NAMES = {
    r"/inpaint": "inpaint",
    r"/photographs": "upload",
    r"/photographs/[^/]+/inpaint": "inpaint kept",
    r"/photographs/[^/]+/preview": "preview",
    r"/photographs/[^/]+": "forget",
    r"/api/v1/.*": "iopaint",
    r"/v2/models/.*/infer": "infer",
    r"/v2.*": "kserve",
    r"/(healthz|readyz|metrics|limits|openapi\.json)": "probe",
    r"/|/page/.*|/favicon\.ico": "page",
}


def make_app(
    handling: Handling,
    access: Access,
    *,
    version: str,
    tracing: Tracing | None,
    lifespan: Callable[[], AsyncIterator[None]],
) -> Guard:
    """tracing: None for none. lifespan: an asynchronous generator that starts what is needed, yields, and ends it."""
    photographs = PhotographApi(handling, version=version, needs_token=access.token is not None)
    kserve, iopaint, page = KserveApi(handling, version=version), IopaintApi(handling), PageFiles()
    probes = _Probes(handling, version)
    routes: list[BaseRoute] = [
        Route("/", page.index),
        Route("/page/{name:path}", page.file),
        Route("/favicon.ico", page.icon),
        Route("/inpaint", photographs.inpaint, methods=["POST"]),
        Route("/photographs", photographs.upload, methods=["POST"]),
        Route("/photographs/{name}", photographs.forget, methods=["DELETE"]),
        Route("/photographs/{name}/inpaint", photographs.inpaint_kept, methods=["POST"]),
        Route("/photographs/{name}/preview", photographs.preview),
        Route("/limits", photographs.limits),
        Route("/openapi.json", probes.openapi),
        Route("/healthz", probes.health),
        Route("/readyz", probes.ready),
        Route("/metrics", probes.metrics),
        Route("/v2", kserve.server),
        Route("/v2/health/live", kserve.live),
        Route("/v2/health/ready", kserve.ready),
        Route("/api/v1/inpaint", iopaint.inpaint, methods=["POST"]),
        Route("/api/v1/model", iopaint.model),
        Route("/api/v1/server-config", iopaint.configuration),
    ]
    for model in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        routes += [
            Route(model, kserve.metadata),
            Route(f"{model}/ready", kserve.ready),
            Route(f"{model}/config", kserve.configuration),
            Route(f"{model}/infer", kserve.infer, methods=["POST"]),
        ]
    router = Router(routes, redirect_slashes=False, lifespan=_lifespan(lifespan))
    return Guard(
        _RaisingRouter(router),
        access,
        handling.metrics,
        routes=_ROUTE_NAMES,
        outgoing=handling.outgoing,
        tracing=tracing,
    )


def _lifespan(
    start: Callable[[], AsyncIterator[None]],
) -> Callable[[object], contextlib.AbstractAsyncContextManager[None]]:
    @contextlib.asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        async for _ in start():
            yield

    return lifespan


class _RaisingRouter:
    """A router raises what is wrong with a path or a method only inside an application; elsewhere it answers itself."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["app"] = self
        await self._router(scope, receive, send)


class _Probes:
    """Handlers for operators."""

    def __init__(self, handling: Handling, version: str) -> None:
        self._handling, self._openapi = handling, openapi_document(version)

    async def openapi(self, _request: Request) -> Response:
        """The interface as an OpenAPI document."""
        return JSONResponse(self._openapi)

    async def health(self, _request: Request) -> Response:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """Whether work is taken, and by which network."""
        handling = self._handling
        info = handling.workforce.info
        status = "ready" if handling.is_ready else "draining" if handling.is_ending else "starting"
        values = {"status": status, "network": info and info.reason, "parity": info and info.parity}
        return JSONResponse(values, 200 if handling.is_ready else 503)

    async def metrics(self, _request: Request) -> Response:
        """Metrics for Prometheus."""
        text = self._handling.metrics.text(self._handling.workforce.progress.batches)
        return Response(text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
