"""The page, used in a real browser against the real service."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import Visit
from tests.support.networks import PHOTOS
from tests.support.service import Service, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Visitor = Callable[..., Visit]


def size(width: int, height: int) -> str:
    """As the page writes it."""
    return f"{width} \N{MULTIPLICATION SIGN} {height}"


@pytest.fixture(scope="module")
def service(browser: Browser) -> Iterator[Service]:  # noqa: ARG001 - without a browser none is started
    with running("--workers", 1, "--threads", 1) as service:
        yield service


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Visitor]:
    visits = []

    def begin(**options: Any) -> Visit:
        visits.append(Visit(browser, f"{service.url}/", **options))
        return visits[-1]

    yield begin
    for each in visits:
        each.close()


def test_a_hole_is_painted_filled_compared_and_downloaded(visit: Visitor) -> None:
    page = visit()
    page.text("#formats", "JPEG, PNG, WebP")
    page.open("balloon.jpg")
    original = page.picture()
    page.paint()
    hole = page.mask() >= 128
    sent = page.inpaint()
    result = page.picture()
    assert result != original

    page.page.mouse.move(*centre(page, "#hold"))
    page.page.mouse.down()
    page.get("body[data-compare=original]").wait_for()
    page.get(
        "#badge",
    ).filter(has_text="Original").wait_for()
    assert page.picture() == original
    page.page.mouse.up()
    page.get("body[data-compare='']").wait_for()
    assert page.picture() == result

    page.get("#slider").click()
    page.get("#split").press("End")
    assert page.picture() == original
    page.get("#split").press("ArrowLeft")
    page.get("#split").fill("500")
    assert page.picture() not in (original, result)
    page.get("#split").press("Home")
    assert page.picture() == result
    page.get("#slider").click()

    name, data = page.download("#download")
    assert (name, data) == ("balloon.inpainted.jpg", sent)
    before, after = (
        np.asarray(Image.open(source)).astype(int) for source in (PHOTOS / "balloon.jpg", io.BytesIO(sent))
    )
    difference = np.abs(before - after).max(axis=2)
    # JPEG changes known pixels a little, next to the hole more.
    assert difference[~hole].mean() < difference[hole].mean() / 3


def test_undo_and_redo(visit: Visitor) -> None:
    page = visit()
    page.open("balloon.jpg")
    page.paint()
    first = page.mask()
    page.get("button[data-tool=eraser]").click()
    page.drag((0.5, 0.4), (0.5, 0.6))
    second = page.mask()
    assert (second < first).any()
    assert not (second > first).any()
    page.press(["Control+z"])
    np.testing.assert_array_equal(page.mask(), first)
    page.press(["Control+z"])
    page.state("open")
    page.press(["Control+Shift+z", "Control+Shift+z"])
    page.state("masked")
    np.testing.assert_array_equal(page.mask(), second)
    page.get("#undo").click()
    np.testing.assert_array_equal(page.mask(), first)


def test_rectangle_lasso_invert_grow_and_clear(visit: Visitor) -> None:
    page = visit()
    page.open("balloon.jpg")
    page.get("button[data-tool=rectangle]").click()
    page.drag((0.4, 0.4), (0.6, 0.6))
    dragged = box(page)
    page.get("#clear").click()
    page.state("open")
    # Without dragging: one corner, then the other.
    page.page.mouse.click(*page.place(0.4, 0.4))
    page.page.mouse.click(*page.place(0.6, 0.6))
    page.state("masked")
    assert box(page) == dragged
    top, left, bottom, right = dragged
    page.get("#grow-by").fill("7")
    page.get("#grow").click()
    assert box(page) == (top - 7, left - 7, bottom + 7, right + 7)
    page.get("#invert").click()
    mask = page.mask()
    assert mask[0, 0] == 255
    assert not mask[top - 7 : bottom + 7, left - 7 : right + 7].any()
    page.get("#clear").click()
    page.get("button[data-tool=lasso]").click()
    page.drag((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.4))
    page.state("masked")
    # A triangle: about half of the rectangle.
    assert (page.mask() > 0).sum() == pytest.approx((bottom - top) * (right - left) / 2, rel=0.05)


def test_masks_go_out_and_come_back_without_loss(visit: Visitor, tmp_path: Path) -> None:
    page = visit()
    page.open("balloon.jpg")
    page.get("#brush-hardness").fill("20")
    page.paint()
    name, data = page.download("#mask-download")
    assert name == "balloon.mask.png"
    image = Image.open(io.BytesIO(data))
    assert (image.mode, image.size) == ("L", (299, 299))
    assert len(np.unique(np.asarray(image))) > 50  # the soft edge
    (tmp_path / name).write_bytes(data)
    page.get("#clear").click()
    page.state("open")
    page.get("#mask-file").set_input_files(tmp_path / name)
    page.state("masked")
    assert page.download("#mask-download")[1] == data


@pytest.mark.parametrize(
    ("values", "mode", "shape", "message"),
    [
        ((0, 255), "L", (299, 298), f"The mask is {size(298, 299)} pixels and the photograph {size(299, 299)}."),
        ((0, 1), "L", (299, 299), "only the values 0 and 1"),
        ((0, 127), "L", (299, 299), "has no hole"),
        ((0, 255), "RGB", (299, 299), "has colours"),
    ],
)
def test_masks_that_do_not_fit_are_refused_in_words(
    visit: Visitor, tmp_path: Path, values: tuple[int, int], mode: str, shape: tuple[int, int], message: str
) -> None:
    grey = np.full(shape, values[0], dtype=np.uint8)
    grey[50:90, 60:120] = values[1]
    image = Image.fromarray(grey)
    if mode == "RGB":
        image = Image.merge("RGB", (image, image.point(lambda value: value // 2), image))
    image.save(tmp_path / "mask.png")
    page = visit()
    page.open("balloon.jpg")
    page.paint()
    before = page.download("#mask-download")
    page.get("#mask-file").set_input_files(tmp_path / "mask.png")
    page.text("#card", message)
    page.text("#alert", message)
    assert page.download("#mask-download") == before


def test_one_mask_for_all_photographs_and_the_next(visit: Visitor) -> None:
    page = visit()
    page.open("balloon.jpg", "yurt.jpg", "demo.jpg")
    page.paint()
    mask = page.download("#mask-download")[1]
    page.get("#same-mask").click()
    page.text("#announcer", "The mask is now on 2 photographs.")
    page.text("#announcer", f"It is {size(299, 299)} pixels and does not fit demo.jpg ({size(1216, 307)}).")
    page.get("#inpaint-all").click()
    page.text("#announcer", "2 photographs inpainted.")
    assert page.get("#queue-list li[data-state=done]").count() == 2
    page.get("#next").click()
    page.text("#file-name", "yurt.jpg")
    page.state("result")
    page.get("#back-to-mask").click()
    page.state("masked")
    assert page.download("#mask-download")[1] == mask
    page.press(["n"])
    page.text("#file-name", "demo.jpg")
    page.state("open")
    page.get("[aria-label='Close demo.jpg']").click()
    page.text("#file-name", "balloon.jpg")
    assert page.get("#queue-list li").count() == 2


def test_a_mask_for_all_can_be_undone_where_there_was_another(visit: Visitor) -> None:
    page = visit()
    page.open("balloon.jpg", "yurt.jpg")
    page.paint()
    own = page.mask()
    page.get("#next").click()
    page.text("#file-name", "yurt.jpg")
    page.drag((0.4, 0.3), (0.4, 0.4))
    page.state("masked")
    shared = page.mask()
    page.get("#same-mask").click()
    page.text("#announcer", "The mask is now on 2 photographs.")
    page.get("#next").click()
    page.text("#file-name", "balloon.jpg")
    np.testing.assert_array_equal(page.mask(), shared)
    page.press(["Control+z"])
    np.testing.assert_array_equal(page.mask(), own)


def test_again_on_the_result_and_back_by_the_history(visit: Visitor) -> None:
    page = visit()
    page.open("yurt.jpg")
    page.paint()
    mask = page.download("#mask-download")[1]
    first = page.inpaint()
    page.drag((0.3, 0.3), (0.35, 0.3))
    page.state("masked")
    second = page.inpaint()
    assert page.get("#history li").count() == 3
    assert page.download("#download")[1] == second
    uploads = [request for request in page.requests if request == "POST /photographs"]
    assert len(uploads) == 1
    paths = [request for request in page.requests if request.endswith("/inpaint")]
    assert len(set(paths)) == 2
    page.get("#history [aria-label='Result 1']").click()
    page.get("#history [aria-label='Result 1'][aria-current]").wait_for()
    assert page.download("#download")[1] == first
    page.get("#history [aria-label=Original]").click()
    page.get("#history [aria-label=Original][aria-current]").wait_for()
    page.state("masked")
    assert page.download("#mask-download")[1] == mask


def test_a_turned_photograph_keeps_its_format_and_metadata(visit: Visitor, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 6
    Image.open(PHOTOS / "demo.jpg").save(tmp_path / "turned.jpg", exif=exif)
    page = visit()
    page.open(tmp_path / "turned.jpg")
    page.text("#file-name", size(307, 1216))
    page.paint()
    assert page.mask().shape == (1216, 307)
    sent = page.inpaint()
    name, data = page.download("#download")
    assert (name, data) == ("turned.inpainted.jpg", sent)
    assert Image.open(io.BytesIO(data)).getexif()[0x010F] == "a camera"
    page.get("#back-to-mask").click()
    page.get("#format").select_option("WEBP")
    page.get("#texture").uncheck()
    page.inpaint()
    name, data = page.download("#download")
    assert (name, Image.open(io.BytesIO(data)).format) == ("turned.inpainted.webp", "WEBP")


def test_a_format_that_the_browser_does_not_know(visit: Visitor, tmp_path: Path) -> None:
    Image.open(PHOTOS / "coast.jpg").save(tmp_path / "coast.tif")
    page = visit()
    page.open(tmp_path / "coast.tif")
    page.text("#file-name", size(299, 299))
    page.paint()
    page.inpaint()
    name, data = page.download("#download")
    assert (name, Image.open(io.BytesIO(data)).format) == ("coast.inpainted.tif", "TIFF")


@pytest.mark.parametrize(("kind", "event"), [("drop", "dataTransfer"), ("paste", "clipboardData")])
def test_photographs_can_be_dropped_and_pasted(visit: Visitor, kind: str, event: str) -> None:
    page = visit()
    data = base64.b64encode((PHOTOS / "coast.jpg").read_bytes()).decode()
    script = """(body, [kind, property, data]) => {
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
        transfer.items.add(new File([bytes], "coast.jpg", {type: "image/jpeg"}));
        const Kind = {drop: DragEvent, paste: ClipboardEvent}[kind];
        body.dispatchEvent(new Kind(kind, {[property]: transfer, bubbles: true, cancelable: true}));
    }"""
    page.get("body").evaluate(script, [kind, event, data])
    page.text("#file-name", "coast.jpg")
    page.state("open")


def test_with_the_keyboard_alone(visit: Visitor) -> None:
    page = visit()
    page.open("balloon.jpg")
    canvas = page.get("#canvases")
    for _ in range(20):
        page.press(["Tab"])
        if canvas.evaluate("element => element === document.activeElement"):
            break
    # The cursor begins in the middle.
    page.press(["Shift+ArrowLeft", "ArrowUp", "Enter"])
    page.state("masked")
    dot = box(page)
    page.press(["Shift+ArrowRight", "Shift+ArrowRight"])
    canvas.focus()
    page.press(["]", "]", "]", "e", "b", "Space"])
    assert box(page)[3] > dot[3]
    page.press(["Control+z"])
    canvas.focus()
    page.press(["r", "ArrowRight", "Enter", "Shift+ArrowDown", "Shift+ArrowRight", "Enter"])
    rectangle = page.mask()
    assert (rectangle == 255).sum() > 300
    canvas.focus()
    page.press(["l", "ArrowLeft", "Enter", "Shift+ArrowDown", "Enter", "Shift+ArrowLeft", "Enter", "Enter"])
    assert (page.mask() == 255).sum() > (rectangle == 255).sum()
    page.press(["Control+Enter"])
    page.state("result")
    canvas.focus()
    page.page.keyboard.down("c")
    page.get("body[data-compare=original]").wait_for()
    page.page.keyboard.up("c")
    page.get("body[data-compare='']").wait_for()
    page.press(["+"])
    zoomed = page.get("#zoom-fit").text_content()
    page.press(["0"])
    assert page.get("#zoom-fit").text_content() != zoomed
    page.get("#help").click()
    page.get("#single-keys").uncheck()
    page.press(["Escape", "e"])
    assert page.get("button[data-tool=lasso]").get_attribute("aria-pressed") == "true"


def test_on_a_phone_with_fingers(visit: Visitor) -> None:
    page = visit(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, device_scale_factor=2)
    page.open("balloon.jpg", "yurt.jpg")
    page.page.touchscreen.tap(*page.place(0.5, 0.5))
    page.state("masked")
    before = page.get("#zoom-fit").text_content()
    # Two fingers zoom, and paint nothing.
    page.press(["Control+z"])
    touch = page.page.context.new_cdp_session(page.page)
    x, y = page.place(0.5, 0.5)
    for kind, gap in (("touchStart", 20), ("touchMove", 60), ("touchMove", 90)):
        points = [{"x": x - gap, "y": y, "id": 1}, {"x": x + gap, "y": y, "id": 2}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.get("#zoom-fit").filter(has_not_text=re.compile(f"^{before}$")).wait_for()
    page.state("open")
    page.page.touchscreen.tap(*page.place(0.5, 0.5))
    page.state("masked")
    page.get("#panel-open").tap()
    page.get("#grow").tap()
    page.get("#panel-close").tap()
    page.get("#inpaint").tap()
    page.state("result")
    for visible in page.get("button:visible").all():
        bounds = visible.bounding_box()
        assert bounds is not None
        assert bounds["width"] >= 24
        assert bounds["height"] >= 24
        assert bounds["x"] >= 0
        assert bounds["x"] + bounds["width"] <= 360, visible.text_content()
    assert page.get("html").evaluate("element => element.scrollWidth") == 360


def test_twelve_megapixels(visit: Visitor, tmp_path: Path) -> None:
    Image.open(PHOTOS / "coast.jpg").resize((4000, 3000)).save(tmp_path / "large.jpg")
    page = visit()
    page.open(tmp_path / "large.jpg")
    page.text("#file-name", size(4000, 3000))
    page.page.mouse.move(*page.place(0.5, 0.5))
    page.page.mouse.wheel(0, -300)
    page.paint()
    mask = page.mask()
    assert mask.shape == (3000, 4000)
    assert 1000 < (mask >= 128).sum() < 3_000_000
    page.inpaint()


def test_dark_and_light_follow_the_system(visit: Visitor) -> None:
    colours = []
    for scheme in ("light", "dark"):
        page = visit(color_scheme=scheme)
        page.open("coast.jpg")
        shown = page.get("html").evaluate("element => getComputedStyle(element).backgroundColor")
        colours.append(sum(map(int, re.findall(r"\d+", shown))))
    assert colours[0] > 600
    assert colours[1] < 100


def centre(page: Visit, selector: str) -> tuple[float, float]:
    bounds = page.get(selector).bounding_box()
    assert bounds is not None
    return bounds["x"] + bounds["width"] / 2, bounds["y"] + bounds["height"] / 2


def box(page: Visit) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the hole."""
    rows, columns = np.nonzero(page.mask() >= 128)
    return int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
