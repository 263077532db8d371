"""The page in a real browser: what a test does with mouse, fingers and keys, and what may not happen meanwhile."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.support.networks import PHOTOS
from tests.support.shared import TIMEOUT_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

_TIMEOUT_MS = 1000 * TIMEOUT_S
_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]
# What Chromium says of any answer that is no success. Tests that provoke one expect it.
_FAILED_LOAD = "Failed to load resource"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install playwright, and a Chromium on the PATH"
    )
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("needs a browser: put chromium or google-chrome on the PATH (apt install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_OPTIONS)
        yield browser
        browser.close()


class Visit:
    """The page in a tab of its own.

    page: the tab. requests: method and path of each request, in order.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self._context = browser.new_context(
            **{"viewport": {"width": 1200, "height": 800}, "accept_downloads": True, **options}
        )
        self._context.set_default_timeout(_TIMEOUT_MS)
        self.page: Page = self._context.new_page()
        self.requests: list[str] = []
        self._messages: list[str] = []
        self._foreign: list[str] = []
        self._url = url
        self.page.on("console", lambda message: self._messages.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self._messages.append(f"error: {error}"))
        self._context.on("request", lambda request: self._note(request.method, request.url))
        self.page.goto(url)

    def close(self, *, with_failures: bool = False) -> None:
        """End, and check that nothing went wrong: no error, no breach of the policy, no request to elsewhere.

        with_failures: the test provoked answers that are no success.
        """
        self._context.close()
        wrong = [message for message in self._messages if message.startswith(("error", "warning"))]
        assert [message for message in wrong if not (with_failures and _FAILED_LOAD in message)] == []
        assert self._foreign == []

    def get(self, selector: str) -> Locator:
        """An element."""
        return self.page.locator(selector)

    def state(self, *names: str) -> None:
        """Wait until the page is in one of these states: empty, open, masked, working, result."""
        self.get(", ".join(f"body[data-state={name}]" for name in names)).wait_for()

    def open(self, *photographs: Path | str) -> None:
        """Choose files; names are those of tests/photos."""
        paths = [PHOTOS / each if isinstance(each, str) else each for each in photographs]
        self.get("#photograph-file").set_input_files(paths)
        self.state("open", "masked")
        self.text("#file-name", paths[0].name)

    def text(self, selector: str, text: str) -> None:
        """Wait until an element has this text in it."""
        self.get(selector).filter(has_text=text).wait_for()

    def place(self, across: float, down: float) -> tuple[float, float]:
        """A place on the stage, by shares of its width and height."""
        box = self.get("#canvases").bounding_box()
        assert box is not None
        return box["x"] + across * box["width"], box["y"] + down * box["height"]

    def drag(self, *shares: tuple[float, float]) -> None:
        """Move the mouse with its button down along places on the stage."""
        first, *others = [self.place(*each) for each in shares]
        self.page.mouse.move(*first)
        self.page.mouse.down()
        for each in others:
            self.page.mouse.move(*each, steps=5)
        self.page.mouse.up()

    def paint(self) -> None:
        """A stroke in the middle."""
        self.drag((0.45, 0.5), (0.55, 0.52))
        self.state("masked")

    def inpaint(self) -> bytes:
        """Press the button, wait for the result, and return the bytes that the server sent."""
        with self.page.expect_response(lambda answer: answer.url.endswith("/inpaint") and answer.ok) as sent:
            self.get("#inpaint").click()
        self.state("result")
        return sent.value.body()

    def download(self, selector: str) -> tuple[str, bytes]:
        """Name and bytes of what a button downloads."""
        with self.page.expect_download() as sent:
            self.get(selector).click()
        return sent.value.suggested_filename, Path(sent.value.path()).read_bytes()

    def mask(self) -> npt.NDArray[np.uint8]:
        """The mask, `[H, W]`, as it is downloaded."""
        return np.asarray(Image.open(io.BytesIO(self.download("#mask-download")[1])))

    def picture(self) -> str:
        """What is drawn of the photograph, after the next frame."""
        script = (
            "canvas => new Promise(done => requestAnimationFrame(() => setTimeout(() => done(canvas.toDataURL()))))"
        )
        return str(self.get("#picture").evaluate(script))

    def press(self, keys: Sequence[str]) -> None:
        """Press keys one after another."""
        for key in keys:
            self.page.keyboard.press(key)

    def _note(self, method: str, url: str) -> None:
        if url.startswith(self._url):
            self.requests.append(f"{method} /{url.removeprefix(self._url)}")
        elif not url.startswith(("blob:", "data:")):
            self._foreign.append(url)
