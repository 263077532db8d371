"""An S3 store over loopback: moto's server in a process of its own, and in front of it a proxy that makes faults."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from cisi_runtime.batch.run_record import RECORD
from tests.support.service import wait_until
from tests.support.shared import TIMEOUT_S

# What concerns one connection is not handed on.
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "expect"})
_ANSWER = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code} by the proxy</Message></Error>'
)


@dataclasses.dataclass(frozen=True)
class Request:
    """kind: the method, or LIST for the listing of a bucket. name: bucket and key, or bucket and prefix."""

    kind: str
    name: str


@dataclasses.dataclass
class Fault:
    """What becomes of requests of a kind whose name fits a pattern.

    times: how many get it, None for all. after: how many pass before.
    answer: status and S3's error code, instead of the store's answer.
    cut: "upload": half the body is taken, then the connection ends, and the store gets nothing. "download": half the
        body is sent.
    before, behind: called before the store gets the request, and when it has answered and the client has no answer yet.
    """

    kind: str
    name: str
    times: int | None = 1
    after: int = 0
    answer: tuple[int, str] | None = None
    cut: str | None = None
    before: Callable[[], object] | None = None
    behind: Callable[[], object] | None = None

    def takes(self, request: Request) -> bool:
        """Whether a request gets it. Counts."""
        if request.kind != self.kind or not fnmatchcase(request.name, self.name):
            return False
        if self.after:
            self.after -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Proxy(ThreadingHTTPServer):
    """Hands requests on to a store.

    log: the requests that came, in their order. page_size: names in a page of a listing, None: as many as were asked
    for.
    """

    daemon_threads = True

    def __init__(self, store: tuple[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.reset()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def reset(self) -> None:
        """No faults, an empty log."""
        self.log: list[Request] = []
        self.page_size: int | None = None
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, *arguments: Any, **more: Any) -> None:
        """A fault; see `Fault`. Of several that fit, the first is taken."""
        self._faults.append(Fault(*arguments, **more))

    def take(self, request: Request) -> Fault | None:
        """Write a request down. Returns what becomes of it."""
        with self._lock:
            self.log.append(request)
            return next((fault for fault in self._faults if fault.takes(request)), None)

    def names(self, kind: str) -> list[str]:
        """The names of all requests of a kind."""
        return [request.name for request in self.log if request.kind == kind]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy
    timeout = TIMEOUT_S

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        request = Request(self.command, unquote(parts.path).strip("/"))
        if self.command == "GET" and "list-type" in query:
            request = Request("LIST", f"{request.name}/{query.get('prefix', '')}")
            if self.server.page_size is not None:
                query["max-keys"] = str(min(self.server.page_size, int(query.get("max-keys", 1000))))
                self.path = f"{parts.path}?{urlencode(query)}"
        fault = self.server.take(request) or Fault(*dataclasses.astuple(request))
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length // 2 if fault.cut == "upload" else length)
        if fault.before is not None:
            fault.before()
        if fault.cut == "upload":
            self.close_connection = True
            return
        if fault.answer is not None:
            status, code = fault.answer
            self._answer(status, [("Content-Type", "application/xml")], _ANSWER.format(code=code).encode())
            return
        status, headers, data = self._forward(body)
        if fault.behind is not None:
            fault.behind()
        self._answer(status, headers, data, cut=fault.cut == "download")

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815  http.server's names

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.server.store, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(self.command, self.path, body, headers)
            with connection.getresponse() as response:
                return response.status, response.getheaders(), response.read()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False) -> None:
        is_head = self.command == "HEAD"
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP and (name.lower() != "content-length" or is_head):
                self.send_header(name, value)
        if not is_head:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if not is_head:
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut


class Store:
    """An empty store before each test. proxy: in front of it; clients go there. direct: a client of boto3's that goes
    past it."""

    def __init__(self, proxy: Proxy, direct: Any) -> None:
        self.proxy, self.direct = proxy, direct

    def environment(self) -> dict[str, str]:
        """What a client needs to know."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.proxy.url,
            # Nothing of this machine's owner is read, and nobody is asked for a role.
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def reset(self) -> None:
        """No buckets, no faults."""
        connection = http.client.HTTPConnection(*self.proxy.store, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("POST", "/moto-api/reset")
            assert connection.getresponse().status == 200
        self.proxy.reset()

    def make(self, *buckets: str) -> None:
        for bucket in buckets:
            self.direct.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.direct.put_object(Bucket=bucket, Key=key, Body=data)

    def upload(self, folder: Path, bucket: str, prefix: str = "") -> None:
        """All files of a folder and below."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(bucket, prefix + path.relative_to(folder).as_posix(), path.read_bytes())

    def delete(self, bucket: str, key: str) -> None:
        self.direct.delete_object(Bucket=bucket, Key=key)

    def get(self, bucket: str, key: str) -> bytes:
        return bytes(self.direct.get_object(Bucket=bucket, Key=key)["Body"].read())

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        pages = self.direct.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Names below a prefix, with their bytes, without the file that says what made them."""
        keys = (key for key in self.keys(bucket, prefix) if not key.endswith(RECORD))
        return {key.removeprefix(prefix): self.get(bucket, key) for key in keys}

    def unfinished_uploads(self, bucket: str) -> list[str]:
        """Keys of multipart uploads that were neither completed nor given up."""
        return [entry["Key"] for entry in self.direct.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]


@contextlib.contextmanager
def running_store() -> Iterator[Store]:
    """A store that answers."""
    import boto3
    from botocore.config import Config

    with _moto() as address, Proxy(address) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            direct = boto3.client(
                "s3",
                endpoint_url=f"http://{address[0]}:{address[1]}",
                aws_access_key_id="test",
                aws_secret_access_key="test",
                region_name="us-east-1",
                config=Config(s3={"addressing_style": "path"}),
            )
            with contextlib.closing(direct):
                yield Store(proxy, direct)
        finally:
            proxy.shutdown()
            thread.join(TIMEOUT_S)


@contextlib.contextmanager
def _moto() -> Iterator[tuple[str, int]]:
    """Where moto's server listens. It takes a free port, and says which."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            said = Path(folder) / "log"
            wait_until(lambda: "Press CTRL+C" in said.read_text() or process.poll() is not None)
            url = said.read_text().partition("Running on ")[2].split()[0]
            yield "127.0.0.1", int(url.rpartition(":")[2])
        finally:
            process.kill()
            process.wait(TIMEOUT_S)
