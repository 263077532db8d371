"""What the page does when the service refuses, forgets or cannot be reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.browser import Visit
from tests.support.networks import PHOTOS
from tests.support.service import Service, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

_INPAINT = "**/inpaint"


@pytest.fixture(scope="module")
def service(browser: Browser) -> Iterator[Service]:  # noqa: ARG001 - without a browser none is started
    with running("--workers", 1, "--threads", 1, "--max-megapixels", 1) as service:
        yield service


@pytest.fixture
def page(browser: Browser, service: Service) -> Iterator[Visit]:
    visit = Visit(browser, f"{service.url}/")
    yield visit
    visit.close(with_failures=True)


def refuse(times: int, status: int, reason: str, detail: str, headers: dict[str, str]) -> Callable[[Route], None]:
    """A stand-in for the service that refuses some requests, and lets the others through."""
    left = [times]

    def handle(route: Route) -> None:
        left[0] -= 1
        if left[0] < 0:
            route.continue_()
            return
        body = json.dumps({"status": status, "reason": reason, "detail": detail})
        route.fulfill(status=status, content_type="application/problem+json", body=body, headers=headers)

    return handle


def test_a_full_queue_is_waited_for(page: Visit) -> None:
    page.open("balloon.jpg")
    page.paint()
    page.page.route(_INPAINT, refuse(2, 429, "queue-full", "the queue is full", {"Retry-After": "1"}))
    page.get("#inpaint").click()
    page.state("result")
    assert len([request for request in page.requests if request.endswith("/inpaint")]) == 3


def test_waiting_for_a_full_queue_can_be_cancelled(page: Visit) -> None:
    page.open("balloon.jpg")
    page.paint()
    page.page.route(_INPAINT, refuse(1000, 429, "queue-full", "the queue is full", {"Retry-After": "600"}))
    page.get("#inpaint").click()
    page.text("#card", "The server is busy, trying again in")
    page.text("#announcer", "trying again in 600 s")
    page.get("#card-action").filter(has_text="Cancel").click()
    page.state("masked")
    assert page.get("#card").is_hidden()


def test_running_work_can_be_cancelled(page: Visit) -> None:
    page.open("balloon.jpg")
    page.paint()
    held: list[Route] = []
    page.page.route(_INPAINT, lambda route: held.append(route))
    page.get("#inpaint").click()
    page.text("#card", "Filling the hole")
    page.get("#card-action").click()
    page.state("masked")
    page.page.unroute(_INPAINT)
    page.inpaint()


def test_a_server_that_cannot_be_reached_and_comes_back(page: Visit) -> None:
    page.open("balloon.jpg")
    page.paint()
    mask = page.download("#mask-download")
    page.page.route(_INPAINT, lambda route: route.abort())
    page.get("#inpaint").click()
    page.text("#card", "The server cannot be reached. Your mask is kept.")
    page.text("#alert", "The server cannot be reached. Your mask is kept.")
    assert page.download("#mask-download") == mask
    page.page.unroute(_INPAINT)
    page.get("#card-action").filter(has_text="Try again").click()
    page.state("result")


def test_an_expired_photograph_is_uploaded_again_unasked(page: Visit, service: Service) -> None:
    with page.page.expect_response(lambda answer: answer.url.endswith("/photographs")) as sent:
        page.open("balloon.jpg")
    page.paint()
    service.client.delete(f"/photographs/{sent.value.json()['id']}").raise_for_status()
    page.inpaint()
    assert page.requests.count("POST /photographs") == 2
    assert page.get("#card").is_hidden()


def test_no_picture_and_too_many_pixels_are_refused_in_words(page: Visit, tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not a picture")
    page.get("#photograph-file").set_input_files(tmp_path / "notes.jpg")
    page.text("#card", "notes.jpg")
    page.state("empty")
    from PIL import Image

    Image.open(PHOTOS / "coast.jpg").resize((1200, 900)).save(tmp_path / "large.jpg")
    page.open(tmp_path / "large.jpg")
    page.text("#card", "expected at most 1")
    # What can be read is opened, with what cannot be read beside it.
    page.get("#photograph-file").set_input_files([tmp_path / "notes.jpg", PHOTOS / "yurt.jpg"])
    page.text("#file-name", "yurt.jpg")
    page.text("#card", "notes.jpg")


def test_a_refused_mask_is_said(page: Visit) -> None:
    page.open("balloon.jpg")
    page.paint()
    page.page.route(_INPAINT, refuse(1, 422, "wrong-mask", "mask: is wrong", {}))
    page.get("#inpaint").click()
    page.text("#card", "mask: is wrong")
    page.state("masked")
    page.inpaint()


def test_one_that_fails_does_not_stop_the_others(page: Visit) -> None:
    page.open("balloon.jpg", "yurt.jpg", "coast.jpg")
    page.paint()
    page.get("#same-mask").click()
    page.text("#announcer", "The mask is now on 3 photographs.")
    page.page.route(_INPAINT, refuse(1, 504, "deadline", "took too long", {}))
    page.get("#inpaint-all").click()
    page.text("#card", "1 photograph could not be inpainted. balloon.jpg: took too long")
    assert page.get("#queue-list li[data-state=done]").count() == 2
    assert page.get("#queue-list li[data-state=failed]").count() == 1


def test_a_photograph_can_be_closed_while_it_is_worked_on(page: Visit) -> None:
    page.open("balloon.jpg", "yurt.jpg")
    page.paint()
    held: list[Route] = []
    page.page.route(_INPAINT, lambda route: held.append(route))
    page.get("#inpaint").click()
    while not held:
        page.page.wait_for_timeout(10)
    page.get("[aria-label='Close balloon.jpg']").click()
    page.text("#file-name", "yurt.jpg")
    for route in held:
        route.continue_()
    page.state("open")
    page.get("#card").wait_for(state="hidden")
    assert page.get("#queue-list li").count() == 1


def test_nothing_to_fill_is_said(page: Visit) -> None:
    page.open("balloon.jpg")
    page.press(["Control+Enter"])
    page.text("#announcer", "Paint over what should go first.")


def test_a_token_is_asked_for_and_kept_for_the_tab(browser: Browser, tmp_path: Path) -> None:
    token = "a-token-of-this-test"
    (tmp_path / "token").write_text(token)
    with running("--workers", 1, "--threads", 1, "--token-file", tmp_path / "token") as service:
        page = Visit(browser, f"{service.url}/")
        page.get("#photograph-file").set_input_files(PHOTOS / "balloon.jpg")
        page.get("#token-dialog").wait_for()
        page.get("#token").fill("wrong")
        page.get("#token-accept").click()
        page.text("#token-dialog", "The server did not accept this token.")
        page.get("#token").fill(token)
        page.get("#token").press("Enter")
        page.state("open")
        page.paint()
        page.inpaint()
        page.page.reload()
        page.open("yurt.jpg")
        page.paint()
        page.inpaint()
        page.close(with_failures=True)
