"""The page and its files, read once: a request's path is looked up in a table, never on the disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from cisi_runtime.serve.refusals import RefusalError

PAGE = Path(__file__).parent / "page"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
    ".png": "image/png",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self' blob:; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class PageFiles:
    """Handlers of `/`, `/page/…` and `/favicon.ico`."""

    def __init__(self) -> None:
        paths = [path for path in PAGE.rglob("*") if path.suffix in _MEDIA_TYPES]
        self._files = {path.relative_to(PAGE).as_posix(): path.read_bytes() for path in paths}

    async def index(self, request: Request) -> Response:
        """The page."""
        return self._answer(request, "index.html")

    async def file(self, request: Request) -> Response:
        """A file of it."""
        return self._answer(request, request.path_params["name"])

    async def icon(self, request: Request) -> Response:
        """The icon that browsers ask for of themselves."""
        return self._answer(request, "icon.svg")

    def _answer(self, request: Request, name: str) -> Response:
        data = self._files.get(name)
        if data is None:
            raise RefusalError(404, "unknown-path", f"{request.url.path}: no such path")
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, headers={**headers, "Content-Type": _MEDIA_TYPES["." + name.rpartition(".")[2]]})
