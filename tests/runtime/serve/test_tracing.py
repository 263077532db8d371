"""OpenTelemetry: what a collector gets, and what is said where it cannot get anything."""

from __future__ import annotations

import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from cisi_runtime.errors import ServiceError
from cisi_runtime.serve.tracing import start_tracing
from tests.runtime.serve.test_service import PNG, mask_png
from tests.support.service import running


def test_a_collector_gets_a_span_for_each_request(tiny_graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    trace = "0af7651916cd43dd8448eb211c80319c"
    with running("--model", tiny_graph, "--workers", 1) as service:
        headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        answer = service.client.post("/inpaint", files={"image": PNG, "mask": mask_png()}, headers=headers)
        assert answer.status_code == 200
        assert service.said("trace_id", trace)[0]["status"] == 200
        assert service.stop() == 0  # what was not sent yet is sent
    collector.shutdown()
    collector.server_close()
    assert [path for path, _ in received] == ["/v1/traces"] * len(received)
    body = b"".join(data for _, data in received)
    assert bytes.fromhex(trace) in body
    for name in (b"cisi-serve", b"inpaint", b"cisi.megapixels", b"cisi.status"):
        assert name in body


def test_without_an_endpoint_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert start_tracing("1") is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    with pytest.raises(ServiceError, match="is not installed: pip install"):
        start_tracing("1")
