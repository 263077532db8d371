"""The service's answers: the bytes of `cisi-run`, what is told beside them, and what is refused in which words."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

from cisi_runtime.batch.job import Job, run_job
from cisi_runtime.batch.photograph import HoleOptions, PhotographOptions
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.serve.openapi import openapi_document
from tests.support.networks import PHOTOS
from tests.support.service import Service, running

HEIGHT, WIDTH = 150, 200


@pytest.fixture(scope="module")
def service(tiny_graph: Path) -> Iterator[Service]:
    with running("--model", tiny_graph, "--workers", 2, "--max-megapixels", 1, "--queue-megapixels", 64) as service:
        yield service


@pytest.fixture(scope="module")
def inpaint(tiny_graph: Path) -> Inpainter:
    return Inpainter(tiny_graph, threads=1)


def picture(seed: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 4), dtype=np.uint8), "RGBA")
    return coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).convert(mode)


def mask_png(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> bytes:
    rng = np.random.default_rng(seed)
    hole = np.zeros(size, dtype=np.uint8)
    top, left = rng.integers(0, size[0] // 2), rng.integers(0, size[1] // 2)
    hole[top : top + 40, left : left + 50] = 255
    return encoded(Image.fromarray(hole), "PNG")


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    target = io.BytesIO()
    image.save(target, file_format, **options)
    return target.getvalue()


def with_exif(image: Image.Image, file_format: str) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 6
    return encoded(image, file_format, exif=exif, dpi=(300, 300))


CASES = {
    "jpeg with EXIF, turned": (with_exif(picture(1), "JPEG"), "jpg", {}, (WIDTH, HEIGHT)),
    "png with alpha": (encoded(picture(2, "RGBA"), "PNG"), "png", {}, (HEIGHT, WIDTH)),
    "grey tiff, inverted": (encoded(picture(3, "L"), "TIFF"), "tif", {"invert_mask": "true"}, (HEIGHT, WIDTH)),
    "webp, grown": (encoded(picture(4), "WEBP", lossless=True), "webp", {"dilate": "7"}, (HEIGHT, WIDTH)),
    "bmp to png": (encoded(picture(5), "BMP"), "png", {"format": "png"}, (HEIGHT, WIDTH)),
    "avif": (encoded(picture(7), "AVIF"), "avif", {}, (HEIGHT, WIDTH)),
    "progressive jpeg": (encoded(picture(8), "JPEG", progressive=True), "jpg", {}, (HEIGHT, WIDTH)),
    "png without detail": (encoded(picture(6), "PNG"), "png", {"detail": "false"}, (HEIGHT, WIDTH)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_bytes_are_those_of_cisi_run(service: Service, tiny_graph: Path, tmp_path: Path, name: str) -> None:
    data, suffix, fields, size = CASES[name]
    mask = mask_png(7, size)
    (tmp_path / "photo").write_bytes(data)
    (tmp_path / "mask").write_bytes(mask)
    options = PhotographOptions(HoleOptions("invert_mask" in fields, int(fields.get("dilate", 0))))
    job = Job(tmp_path / "photo", tmp_path / "mask", tmp_path / f"out.{suffix}")
    with Inpainter(tiny_graph, detail="detail" not in fields) as inpaint:
        done = run_job(job, lambda: inpaint, options)
    answer = service.client.post("/inpaint", files={"image": data, "mask": mask}, data=fields)
    assert answer.status_code == 200, answer.text
    assert answer.content == job.output.read_bytes()
    headers = answer.headers
    assert headers["cisi-format"] == done.format
    assert headers["content-type"] == f"image/{done.format.lower()}"
    assert int(headers["cisi-largest-change"]) == done.change
    assert float(headers["cisi-hole"]) == pytest.approx(done.hole_mask.mean(), abs=1e-6)
    assert unquote(headers["cisi-report"]) == done.report
    stages = [stage.partition(";dur=")[0] for stage in headers["server-timing"].split(", ")]
    assert stages == ["decode", "prepare", "copy-in", "run", "copy-out", "finish", "detail", "encode", "check", "queue"]


def test_the_report_as_json(service: Service) -> None:
    files = {"image": with_exif(picture(1), "JPEG"), "mask": mask_png(7, (WIDTH, HEIGHT))}
    plain = service.client.post("/inpaint", files=files, data={"format": "bmp"})
    told = service.client.post(
        "/inpaint", files=files, data={"format": "bmp"}, headers={"Accept": "application/json"}
    ).json()
    assert base64.b64decode(told.pop("image")) == plain.content
    assert told["not_kept"] == ["EXIF"]
    assert unquote(plain.headers["cisi-not-kept"]) == "EXIF"
    assert (told["format"], told["media_type"], told["width"], told["height"]) == ("BMP", "image/bmp", HEIGHT, WIDTH)
    assert set(told) == {
        *("format", "media_type", "width", "height", "hole", "largest_change", "not_kept", "report", "notes"),
        "milliseconds",
    }


def test_transparency_is_the_hole_when_asked_for(service: Service, inpaint: Inpainter) -> None:
    image = picture(8, "RGBA")
    image.putalpha(Image.open(io.BytesIO(mask_png(3))).point(lambda grey: 255 - grey))
    answer = service.client.post(
        "/inpaint", files={"image": encoded(image, "PNG")}, data={"mask_from_alpha": "true", "detail": "true"}
    )
    completed = np.asarray(Image.open(io.BytesIO(answer.content)))
    hole = np.asarray(Image.open(io.BytesIO(mask_png(3)))) > 0
    assert (completed[..., 3] == 255).all()
    assert np.array_equal(completed[..., :3], inpaint(np.asarray(image.convert("RGB")), hole))


def test_a_picture_without_a_hole_comes_back_byte_by_byte(service: Service) -> None:
    data, black = with_exif(picture(1), "JPEG"), encoded(Image.new("L", (HEIGHT, WIDTH)), "PNG")
    answer = service.client.post("/inpaint", files={"image": data, "mask": black})
    assert answer.content == data
    assert "no hole" in unquote(answer.headers["cisi-report"])


def test_many_at_once_get_what_each_alone_gets(service: Service, inpaint: Inpainter) -> None:
    """Windows of different photographs share batches, of sizes that fit and sizes that do not."""

    def ask(seed: int) -> tuple[bytes, int]:
        side = 256 if seed % 2 else 150
        image = picture(seed).resize((side, side))
        answer = service.client.post(
            "/inpaint",
            files={"image": encoded(image, "PNG"), "mask": mask_png(seed, (side, side))},
            data={"detail": "false"},
        )
        assert answer.status_code == 200, answer.text
        return answer.content, side

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(32)))
    plain = Inpainter(inpaint.backend, detail=False)
    for seed, (content, side) in enumerate(answers):
        hole = np.asarray(Image.open(io.BytesIO(mask_png(seed, (side, side))))) > 0
        expected = plain(np.asarray(picture(seed).resize((side, side))), hole)
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), expected), seed


def png_of_size(width: int, height: int) -> bytes:
    """A file of a few bytes that says it is that large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


PNG = encoded(picture(1), "PNG")
REFUSED = {
    "not a picture": ({"image": b"hello", "mask": mask_png()}, {}, 415, "not-a-picture", "expected JPEG, PNG"),
    "a mask that is none": ({"image": PNG, "mask": b"hello"}, {}, 415, "not-a-picture", "mask: upload: not a picture"),
    "a damaged picture": ({"image": PNG[:-200], "mask": mask_png()}, {}, 415, "not-a-picture", "image: "),
    "a mask of another size": (
        *({"image": PNG, "mask": mask_png(0, (80, 90))}, {}, 422, "wrong-mask"),
        "mask: upload: the mask is 90x80 pixels, expected 200x150 as the picture",
    ),
    "a coloured mask": ({"image": PNG, "mask": PNG}, {}, 422, "wrong-mask", "expected a black and white mask"),
    "no alpha": ({"image": PNG}, {"mask_from_alpha": "true"}, 422, "wrong-mask", "has no alpha channel"),
    "too many pixels": (
        *({"image": png_of_size(1001, 1000), "mask": mask_png()}, {}, 413, "too-many-pixels"),
        "1001x1000 is 1.001 megapixels, expected at most 1",
    ),
    "a decompression bomb": (
        *({"image": png_of_size(60000, 60000), "mask": mask_png()}, {}, 413, "too-many-pixels"),
        "expected at most 1",
    ),
    "a mask of another size, which would take long to decode": (
        *({"image": PNG, "mask": png_of_size(1000, 900)}, {}, 422, "wrong-mask"),
        "mask: upload: the mask is 1000x900 pixels, expected 200x150 as the picture",
    ),
    "a bomb as mask": (
        *({"image": PNG, "mask": png_of_size(60000, 60000)}, {}, 413, "too-many-pixels"),
        "mask: upload: 60000x60000",
    ),
    "no image": ({"mask": mask_png()}, {}, 422, "wrong-field", "image: is missing, expected a picture file"),
    "no mask": ({"image": PNG}, {}, 422, "wrong-field", "expected a file mask, or mask_from_alpha=true, and not both"),
    "both": ({"image": PNG, "mask": mask_png()}, {"mask_from_alpha": "true"}, 422, "wrong-field", "and not both"),
    "an unknown field": ({"image": PNG, "mask": mask_png()}, {"size": "2"}, 422, "wrong-field", "'size': unknown"),
    "image as a text": ({"mask": mask_png()}, {"image": "x"}, 422, "wrong-field", "image: expected as a file"),
    "an option as a file": (
        *({"image": PNG, "mask": mask_png(), "dilate": b"3"}, {}, 422, "wrong-field"),
        "dilate: expected as a text",
    ),
    "words for a number": (
        *({"image": PNG, "mask": mask_png()}, {"dilate": "-1", "detail": "perhaps"}, 422, "wrong-field"),
        "detail: 'perhaps', expected true or false; dilate: '-1', expected a whole number",
    ),
    "an unknown format": ({"image": PNG, "mask": mask_png()}, {"format": "gif"}, 422, "wrong-field", "format: 'gif'"),
    "alpha into a JPEG file": (
        *({"image": encoded(picture(1, "RGBA"), "PNG"), "mask": mask_png()}, {"format": "jpeg"}, 422, "wrong-field"),
        "JPEG cannot hold the picture's alpha channel",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(service: Service, name: str) -> None:
    files, fields, status, reason, words = REFUSED[name]
    # As files even where there is none, so that the form stays multipart.
    answer = service.client.post("/inpaint", files=files, data=fields)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["reason"]) == (status, status, reason), problem
    assert words in problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_bodies_that_are_no_form_or_too_large(service: Service) -> None:
    limit = service.client.get("/limits").json()["max_bytes"]
    assert limit == 5 * 1_000_000 + (1 << 20)
    ask = service.client.post
    assert ask("/inpaint", json={"image": 1}).json()["reason"] == "wrong-form"
    assert ask("/inpaint", content=b"").json()["detail"].startswith("Content-Type: got none")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert ask("/inpaint", content=b"--y\r\n", headers=broken).status_code == 400
    assert ask("/inpaint", content=b"", headers={"Content-Type": "multipart/form-data"}).status_code == 400
    twice = [("image", PNG), ("image", PNG), ("mask", mask_png())]
    assert "image: is there twice" in ask("/inpaint", files=twice).json()["detail"]
    many = [(f"f{number}", PNG) for number in range(9)]
    assert ask("/inpaint", files=many).status_code == 400
    # Told beforehand: refused before a byte of it is read.
    with service.connect() as connection:
        head = "POST /inpaint HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        connection.sendall(f"{head}Content-Length: {limit + 1}\r\n\r\n".encode())
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        while connection.recv(65536):
            pass  # and the connection is closed

    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        for _ in range(limit // 100_000 + 2):
            yield bytes(100_000)

    answer = ask("/inpaint", content=endless(), headers=broken)
    assert (answer.status_code, answer.json()["reason"]) == (413, "too-many-bytes")
    assert service.client.get("/readyz").status_code == 200
    assert service.metric("cisi_queue_requests") == 0


def test_a_photograph_is_uploaded_once(service: Service) -> None:
    data = with_exif(picture(9), "JPEG")
    kept = service.client.post("/photographs", files={"image": ("beach.jpg", data)})
    assert kept.status_code == 201
    told = kept.json()
    assert kept.headers["location"] == f"/photographs/{told['id']}"
    assert (told["width"], told["height"], told["format"], told["bytes"]) == (HEIGHT, WIDTH, "JPEG", len(data))
    preview = Image.open(io.BytesIO(service.client.get(f"/photographs/{told['id']}/preview").content))
    assert (preview.format, preview.size) == ("PNG", (HEIGHT, WIDTH))
    mask = mask_png(1, (WIDTH, HEIGHT))
    first = service.client.post(f"/photographs/{told['id']}/inpaint", files={"mask": mask})
    assert first.content == service.client.post("/inpaint", files={"image": data, "mask": mask}).content
    # Again on the result, which was kept too.
    again = mask_png(2, (WIDTH, HEIGHT))
    second = service.client.post(f"/photographs/{first.headers['cisi-photograph']}/inpaint", files={"mask": again})
    whole = service.client.post("/inpaint", files={"image": first.content, "mask": again})
    assert second.content == whole.content
    assert service.client.delete(f"/photographs/{told['id']}").status_code == 204
    gone = service.client.post(f"/photographs/{told['id']}/inpaint", files={"mask": mask})
    assert (gone.status_code, gone.json()["reason"]) == (404, "unknown-photograph")
    assert service.client.get("/photographs/..%2f..%2fetc%2fpasswd/preview").status_code == 404
    wrong = service.client.post("/photographs", files={"photo": data})
    assert wrong.json()["detail"] == "expected one file image, got photo"


def test_iopaints_interface(service: Service) -> None:
    data, mask = encoded(picture(1), "JPEG"), mask_png()
    request = {
        "image": base64.b64encode(data).decode(),
        "mask": "data:image/png;base64," + base64.b64encode(mask).decode(),
        **{"ldm_steps": 20, "hd_strategy": "Crop", "sd_seed": 7, "prompt": ""},
    }
    answer = service.client.post("/api/v1/inpaint", json=request)
    assert (answer.headers["content-type"], answer.headers["x-seed"]) == ("image/png", "7")
    as_png = service.client.post("/inpaint", files={"image": data, "mask": mask}, data={"format": "png"})
    assert answer.content == as_png.content
    assert service.client.get("/api/v1/model").json()["name"] == "cisi"
    assert service.client.get("/api/v1/server-config").json()["modelInfos"][0]["model_type"] == "inpaint"
    for wrong, words in (
        ({"image": request["image"]}, "missing required field `mask`"),
        ({**request, "image": "%%%"}, "image: expected base64"),
        ({**request, "mask": base64.b64encode(mask_png(0, (50, 60))).decode()}, "expected 200x150"),
    ):
        refused = service.client.post("/api/v1/inpaint", json=wrong)
        assert refused.status_code == 422
        assert words in refused.json()["detail"]
    assert service.client.post("/api/v1/inpaint", content=b"[" * 100_000).status_code == 422


def test_what_operators_ask(service: Service) -> None:
    ready = service.client.get("/readyz").json()
    assert ready["status"] == "ready"
    assert "comparisons, all pass" in ready["parity"]
    assert service.client.get("/healthz").json() == {"status": "ok"}
    assert service.client.head("/healthz").status_code == 200
    service.client.post("/inpaint", files={"image": PNG, "mask": mask_png()}, headers={"X-Request-ID": "mine-1"})
    service.client.post("/inpaint", files={"image": b"?", "mask": mask_png()}, headers={"X-Request-ID": "not one, two"})
    metrics = service.client.get("/metrics").text
    for line in (
        'cisi_requests_total{route="inpaint",status="200"}',
        'cisi_refusals_total{reason="not-a-picture"}',
        'cisi_stage_seconds_count{stage="detail"}',
        'cisi_memory_bytes{process="network"}',
        'cisi_memory_bytes{process="photographs"}',
        'cisi_process_deaths_total{process="network"} 0.0',
        'cisi_batches_total{windows="1"}',
        "cisi_queue_megapixels 0.0",
        "cisi_ready 1.0",
    ):
        assert line in metrics, line
    (said,) = service.said("request_id", "mine-1")
    assert (said["method"], said["path"], said["status"], said["megapixels"]) == ("POST", "/inpaint", 200, 0.03)
    # Whoever knows the name of a photograph may look at it.
    name = service.client.post("/photographs", files={"image": PNG}).json()["id"]
    service.client.get(f"/photographs/{name}/preview", headers={"X-Request-ID": "mine-3"})
    (said,) = service.said("request_id", "mine-3")
    assert (said["path"], said["status"]) == (f"/photographs/{name[:6]}.../preview", 200)
    assert not any(name in str(line) for line in service.log)
    refused = service.said("reason", "not-a-picture")[-1]
    assert refused["request_id"] != "not one, two"
    assert all(line["level"] != "not JSON" for line in service.log)


def test_paths_and_methods_that_there_are_not(service: Service) -> None:
    for path in ("/nothing", "/page/../cli/serve.py", "/page/%2e%2e/app.py", "/v2/models/other", "/inpaint/"):
        answer = service.client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path
    with service.connect() as connection:
        connection.sendall(b"this is not HTTP\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["reason"] == "wrong-http"
    wrong = service.client.get("/inpaint")
    assert (wrong.json()["reason"], wrong.headers["allow"]) == ("wrong-method", "POST")


def test_the_openapi_document_describes_what_there_is(service: Service) -> None:
    from openapi_spec_validator import validate

    document = service.client.get("/openapi.json").json()
    validate(document)
    assert document == json.loads(json.dumps(openapi_document(document["info"]["version"])))
    for path, operations in document["paths"].items():
        for method in set(operations) & {"get", "post", "delete"}:
            answer = service.client.request(method, path.replace("{id}", "none"))
            # Whatever it answers, there is such a path and it takes the method.
            assert answer.status_code not in (405, 500), path
            assert answer.status_code != 404 or answer.json()["reason"] == "unknown-photograph", path
            assert str(answer.status_code) in operations[method]["responses"] or "{id}" in path, (path, method)


def test_other_sites_and_other_names_are_kept_out(service: Service) -> None:
    form = {"image": PNG, "mask": mask_png()}
    foreign = service.client.post("/inpaint", files=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert (foreign.status_code, foreign.json()["reason"]) == (403, "cross-site")
    assert service.client.get("/readyz", headers={"Host": "LOCALHOST:1"}).status_code == 200
    renamed = service.client.get("/readyz", headers={"Host": "evil.example:8000"})
    assert (renamed.status_code, renamed.json()["reason"]) == (421, "wrong-host")
    page = service.client.get("/")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_the_shipped_network_gives_the_bytes_of_cisi_run(tmp_path: Path) -> None:
    photo, mask = PHOTOS / "balloon.jpg", PHOTOS / "balloon.mask.png"
    with Inpainter() as inpaint:
        run_job(Job(photo, mask, tmp_path / "out.jpg"), lambda: inpaint)
    with running("--workers", 1) as service:
        files = {"image": photo.read_bytes(), "mask": mask.read_bytes()}
        assert service.client.post("/inpaint", files=files).content == (tmp_path / "out.jpg").read_bytes()
        assert service.stop() == 0
