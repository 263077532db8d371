"""The page without a server: written, and used in a real browser."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import io
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from cisi_runtime.backends import graph
from cisi_runtime.backends.base import FixedShape
from cisi_runtime.backends.registry import SHIPPED_GRAPH
from cisi_runtime.errors import DataError, GraphError, OutputError
from cisi_runtime.serve.static_page import write_static_page
from tests.support.browser import Visit
from tests.support.networks import PHOTOS

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("needs npm, which fetches onnxruntime-web: install Node.js")
    folder = tmp_path_factory.mktemp("site") / "below" / "inpainting"
    folder.parent.mkdir()
    try:
        write_static_page(folder, SHIPPED_GRAPH)
    except DataError as error:
        if "failed" not in str(error):
            raise
        pytest.skip(f"needs a connection to the npm registry: {error}")
    return folder


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    """In a folder of a static web server, where relative addresses matter."""
    handler = functools.partial(_QuietHandler, directory=str(folder.parent.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/below/inpainting/"
        server.shutdown()


def test_a_hole_is_filled_in_the_browser(browser: Browser, url: str) -> None:
    page = Visit(browser, url)
    page.open("yurt.jpg")
    page.paint()
    hole = page.mask() >= 128
    page.text("#engine-notes", "without the photograph\N{RIGHT SINGLE QUOTATION MARK}s metadata, colour profile")
    page.text("#engine-notes", "no texture")
    assert page.get("#texture-row").is_hidden()
    page.get("#inpaint").click()
    page.state("result")
    name, data = page.download("#download")
    assert name == "yurt.inpainted.png"
    before = np.asarray(Image.open(PHOTOS / "yurt.jpg"))
    after = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(after[~hole], before[~hole])
    changed = (after[hole] != before[hole]).any(axis=1)
    assert changed.mean() > 0.5
    # Again on the result, and back.
    page.drag((0.3, 0.3), (0.35, 0.3))
    page.state("masked")
    page.get("#inpaint").click()
    page.state("result")
    assert page.get("#history li").count() == 3
    page.close()


def test_a_window_larger_than_the_network_takes(browser: Browser, url: str, tmp_path: Path) -> None:
    Image.open(PHOTOS / "coast.jpg").resize((1300, 900)).save(tmp_path / "large.png")
    page = Visit(browser, url)
    page.open(tmp_path / "large.png")
    page.get("button[data-tool=rectangle]").click()
    page.drag((0.3, 0.4), (0.6, 0.6))
    page.state("masked")
    hole = page.mask() >= 128
    page.get("#inpaint").click()
    page.state("result")
    before = np.asarray(Image.open(tmp_path / "large.png"))
    after = np.asarray(Image.open(io.BytesIO(page.download("#download")[1])).convert("RGB"))
    assert after.shape == before.shape
    np.testing.assert_array_equal(after[~hole], before[~hole])
    assert (after[hole] != before[hole]).any()
    page.close()


def test_everything_that_the_page_needs_is_there(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"index.html", "page", "README.txt"}
    assert "MIT License" in (folder / "page" / "ort" / "LICENSE").read_text()
    assert "file://" in (folder / "README.txt").read_text()
    assert (folder / "page" / "graph.onnx").read_bytes() == SHIPPED_GRAPH.read_bytes()
    assert "wasm-unsafe-eval" in (folder / "index.html").read_text()
    assert folder.stat().st_mode & 0o055 == 0o055
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(OutputError, match="is not empty, expected a new or an empty folder"):
        write_static_page(tmp_path / "full", SHIPPED_GRAPH)
    with pytest.raises(OutputError, match="is a file"):
        write_static_page(tmp_path / "full" / "mine", SHIPPED_GRAPH)
    with pytest.raises(OutputError, match="does not exist"):
        write_static_page(tmp_path / "nowhere" / "site", SHIPPED_GRAPH)


@pytest.mark.parametrize(
    ("fixed", "contract", "message"),
    [
        ((1, 256, 256), {}, "expected a graph with uint8 inputs for any size"),
        ((None, None, None), {"face": "tensor"}, "expected a graph with uint8 inputs for any size"),
        ((None, None, None), {"target": "tensorrt"}, "is for tensorrt, expected a float32 or INT8 graph for the CPU"),
    ],
)
def test_graphs_that_the_worker_cannot_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fixed: tuple[int | None, int | None, int | None],
    contract: dict[str, Any],
    message: str,
) -> None:
    shipped = graph.read_graph(SHIPPED_GRAPH)
    other = dataclasses.replace(
        shipped, fixed=FixedShape(*fixed), contract=dataclasses.replace(shipped.contract, **contract)
    )
    monkeypatch.setattr(graph, "read_graph", lambda _: other)
    with pytest.raises(GraphError, match=message):
        write_static_page(tmp_path / "site", SHIPPED_GRAPH)
    assert list(tmp_path.iterdir()) == []


def test_npm_that_is_missing_fails_or_delivers_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(DataError, match="npm: not found, expected Node.js with npm"):
        write_static_page(tmp_path / "site", SHIPPED_GRAPH)
    monkeypatch.setattr(shutil, "which", lambda _: "/somewhere/npm")

    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "npm error ENOTFOUND\nmore")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(DataError, match="failed: npm error ENOTFOUND; expected a connection to the npm registry"):
        write_static_page(tmp_path / "site", SHIPPED_GRAPH)

    def deliver(command: list[str], *, cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        (cwd / "onnxruntime-web-1.30.0.tgz").write_bytes(b"another")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", deliver)
    with pytest.raises(DataError, match="it is not the published package"):
        write_static_page(tmp_path / "site", SHIPPED_GRAPH)
    assert list(tmp_path.iterdir()) == []
