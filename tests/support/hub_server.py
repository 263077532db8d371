"""A stand-in for the Hugging Face Hub over loopback: what `huggingface_hub` asks when it lists and fetches a model.

Answers, headers and error codes are those that its client reads (huggingface_hub 1.33 to 2.4, `hf_api.py`,
`file_download.py` and `utils/_http.py`). Graphs are in Git LFS there: asked for, they lead elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


@dataclasses.dataclass
class Repository:
    """A model repository with one commit.

    files: by their path. revisions: names of the commit. private, gated: to be read with the token alone.
    """

    files: dict[str, bytes]
    revisions: tuple[str, ...] = ("main",)
    private: bool = False
    gated: bool = False

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class HubServer(ThreadingHTTPServer):
    """Without repositories at first.

    repositories: by `owner/name`.
    token, strangers_token: what may read all of them, and what may read the public ones. Others are refused.
    fetched: paths whose contents were sent.
    cuts: for the next times that a graph is sent, the bytes after which the connection ends.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.token, self.strangers_token = "hf_owner", "hf_stranger"
        self.requests = 0
        self.fetched: list[str] = []
        self.cuts: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def lfs_url(self) -> str:
        """By another name: the client follows what stays at a host itself, and gives no token to another."""
        return f"http://localhost:{self.server_address[1]}/lfs"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.requests += 1
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[0] == "lfs":
            self._send_contents("/".join(parts[1:3]), "/".join(parts[3:]))
            return
        is_api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if is_api else parts
        repository = self._readable(f"{owner}/{name}", is_api)
        if repository is None:
            return
        revision = rest[1] if rest else "main"
        if revision not in (*repository.revisions, repository.commit):
            self._refuse(404, "RevisionNotFound")
        elif not is_api:
            self._resolve(f"{owner}/{name}", repository, "/".join(rest[2:]))
        elif rest[:1] == ["tree"]:
            self._send(200, json.dumps([_entry(path, data) for path, data in repository.files.items()]).encode())
        else:
            siblings = [{"rfilename": path} for path in repository.files]
            about = {"id": f"{owner}/{name}", "sha": repository.commit, "siblings": siblings}
            self._send(200, json.dumps(about).encode())

    def _readable(self, name: str, is_api: bool) -> Repository | None:
        """None where the request was refused. Who may not read a private repository is told that there is none."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        may_read_all = token == self.server.token
        if token not in ("", self.server.token, self.server.strangers_token):
            self._send(401, b"", {"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not may_read_all):
            self._refuse(404 if token else 401, "RepoNotFound")
            return None
        if repository.gated and not is_api and not may_read_all:
            self._refuse(403 if token else 401, "GatedRepo")  # what it holds can be listed by everybody
            return None
        return repository

    def _resolve(self, name: str, repository: Repository, path: str) -> None:
        headers = {"X-Repo-Commit": repository.commit}
        if path not in repository.files:
            self._refuse(404, "EntryNotFound", headers)
        elif path.endswith(".onnx"):
            data = repository.files[path]
            headers |= {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Linked-Size": str(len(data))}
            self._send(302, b"", headers | {"Location": f"{self.server.lfs_url}/{name}/{path}"})
        else:
            self._send_contents(name, path, headers)

    def _send_contents(self, name: str, path: str, headers: dict[str, str] | None = None) -> None:
        data = self.server.repositories[name].files[path]
        if self.command == "GET":
            self.server.fetched.append(path)
        self._send(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', **(headers or {})})

    def _refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._send(status, b"", {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            cut = self.server.cuts.pop(0) if self.path.startswith("/lfs/") and self.server.cuts else None
            self.wfile.write(body[:cut])
            self.close_connection |= cut is not None


def _entry(path: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if path.endswith(".onnx"):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
    return entry


@contextlib.contextmanager
def running_hub(patch: pytest.MonkeyPatch, cache: str) -> Iterator[HubServer]:
    """A server that `huggingface_hub` in this process takes for the Hub, with a cache of its own and no token."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    patch.setattr(constants, "ENDPOINT", server.url)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HUB_CACHE", cache)
    patch.setattr(constants, "HF_HUB_OFFLINE", False)
    patch.setattr(constants, "HF_TOKEN_PATH", f"{cache}/token")
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        patch.delenv(variable, raising=False)
    patch.setenv("NO_PROXY", "127.0.0.1,localhost")
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
