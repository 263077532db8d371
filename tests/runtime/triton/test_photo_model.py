"""The model `cisi-photo` with a stand-in for Triton's own module: the bytes of `cisi-run`, options, errors, report."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cisi_runtime.backends import cores
from cisi_runtime.batch.job import Job, run_job
from cisi_runtime.batch.photograph import HoleOptions, PhotographOptions
from cisi_runtime.errors import CpuError, GraphError, PictureError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.timing import STAGES
from cisi_runtime.triton.config import PHOTO
from cisi_runtime.triton.photo_model import PhotoModel, PhotoRequest
from cisi_runtime.triton.repository import read_network, write_repository


class Tensor:
    """As Triton's: it is handed over and taken by DLPack."""

    def __init__(self, name: str, array: npt.NDArray[Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def __dlpack__(self, stream: None = None) -> Any:
        return self._array.__dlpack__()

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()

    @classmethod
    def from_dlpack(cls, name: str, capsule: Any) -> Tensor:
        class Holder:
            def __dlpack__(self, **_how: Any) -> Any:
                return capsule

            def __dlpack_device__(self) -> tuple[int, int]:
                return 1, 0

        return cls(name, np.from_dlpack(Holder()).copy())

    def to_bytes(self) -> bytes:
        return bytes(self._array.tobytes())


@dataclasses.dataclass
class TritonError:
    message: str
    code: int = 0
    INVALID_ARG = 3
    INTERNAL = 2


@dataclasses.dataclass
class InferenceResponse:
    output_tensors: tuple[Tensor, ...] | list[Tensor] = ()
    error: TritonError | None = None

    def output(self, name: str) -> bytes:
        assert self.error is None, self.error
        return next(tensor for tensor in self.output_tensors if tensor.name() == name).to_bytes()

    @property
    def report(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.output("report"))
        return values


class Request:
    def __init__(self, image: bytes | None, mask: bytes | None = None, **parameters: Any) -> None:
        files = {"image": image, "mask": mask}
        self.files = {name: data for name, data in files.items() if data is not None}
        self._parameters = json.dumps(parameters)

    def parameters(self) -> str:
        return self._parameters


class Utils:
    """In the place of `triton_python_backend_utils`."""

    Tensor, TritonError, InferenceResponse = Tensor, TritonError, InferenceResponse

    class Logger:
        lines: list[str]

        @classmethod
        def log_info(cls, line: str) -> None:
            cls.lines.append(line)

        log_warn = log_info

    @staticmethod
    def get_input_tensor_by_name(request: Request, name: str) -> Tensor | None:
        if name not in request.files:
            return None
        return Tensor(name, np.frombuffer(bytearray(request.files[name]), dtype=np.uint8))


class Model(PhotoModel):
    utils = Utils


def arguments(folder: Path, workers: int = 1) -> dict[str, str]:
    """What Triton hands to a model in the version 1 of its folder."""
    config = {"instance_group": [{"count": workers, "kind": "KIND_CPU"}]}
    values = {"model_name": PHOTO, "model_version": "1", "model_repository": str(folder / PHOTO)}
    return values | {"model_config": json.dumps(config)}


@pytest.fixture(autouse=True)
def _all_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_limit", None)
    monkeypatch.setattr(Utils.Logger, "lines", [], raising=False)


@pytest.fixture(scope="module")
def repository(tiny_graph: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "models"
    write_repository(folder, read_network(tiny_graph))
    return folder


@pytest.fixture(scope="module")
def model(repository: Path) -> Model:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cores, "_limit", 1)
        patch.setattr(Utils.Logger, "lines", [], raising=False)
        opened = Model()
        opened.initialize(arguments(repository))
    return opened


def answer(model: Model, request: Request) -> InferenceResponse:
    (response,) = model.execute([request])
    assert isinstance(response, InferenceResponse)
    return response


def fault(model: Model, request: Request) -> tuple[int, str]:
    error = answer(model, request).error
    assert error is not None
    return error.code, error.message


def photograph(folder: Path, suffix: str, mode: str = "RGB", size: tuple[int, int] = (96, 80)) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(hole(size)).point(lambda level: 255 - level))
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    path = folder / f"photo.{suffix}"
    image.save(path, exif=exif, dpi=(300, 300))
    return path.read_bytes()


def hole(size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    levels = np.zeros((size[1], size[0]), dtype=np.uint8)
    levels[20:50, 30:60] = 255
    return levels


def mask_file(size: tuple[int, int] = (96, 80)) -> bytes:
    target = io.BytesIO()
    Image.fromarray(hole(size)).save(target, "PNG")
    return target.getvalue()


def as_run(
    folder: Path, model: Path, suffix: str, mask: bytes | None, out: str, *, detail: bool = True, **holes: Any
) -> bytes:
    """The bytes that `cisi-run` writes."""
    mask_path = None if mask is None else folder / "mask.png"
    if mask_path is not None and mask is not None:
        mask_path.write_bytes(mask)
    output = folder / f"out.{out}"
    with Inpainter(model, threads=1, detail=detail) as inpainter:
        options = PhotographOptions(HoleOptions(**holes))
        run_job(Job(folder / f"photo.{suffix}", mask_path, output), lambda: inpainter, options)
    return output.read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_the_bytes_of_cisi_run(tmp_path: Path, model: Model, tiny_graph: Path, suffix: str) -> None:
    image, mask = photograph(tmp_path, suffix), mask_file()
    response = answer(model, Request(image, mask))
    assert response.output("completed") == as_run(tmp_path, tiny_graph, suffix, mask, suffix)
    report = response.report
    assert report["format"] == {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper())
    assert (report["largest_change"] > 0) == (suffix == "jpg")
    assert report["has_hole"] is True
    assert report["not_kept"] == []
    assert list(report["milliseconds"]) == list(STAGES)
    assert report["milliseconds"]["run"] > 0


def test_options(tmp_path: Path, model: Model, tiny_graph: Path) -> None:
    image, mask = photograph(tmp_path, "jpg"), mask_file()
    for parameters, holes, detail in (
        ({"dilate": 3}, {"dilate": 3}, True),
        ({"invert_mask": True}, {"invert": True}, True),
        ({"detail": False}, {}, False),
    ):
        expected = as_run(tmp_path, tiny_graph, "jpg", mask, "jpg", detail=detail, **holes)
        assert answer(model, Request(image, mask, **parameters)).output("completed") == expected
    response = answer(model, Request(image, mask, format="png"))
    assert response.output("completed") == as_run(tmp_path, tiny_graph, "jpg", mask, "png")
    assert (response.report["format"], response.report["largest_change"]) == ("PNG", 0)


def test_transparency_is_the_hole_without_a_mask(tmp_path: Path, model: Model, tiny_graph: Path) -> None:
    image = photograph(tmp_path, "png", "RGBA")
    completed = answer(model, Request(image)).output("completed")
    assert completed == as_run(tmp_path, tiny_graph, "png", None, "png")
    with Image.open(io.BytesIO(completed)) as result:
        assert np.asarray(result.getchannel("A")).min() == 255


def test_no_hole_gives_the_file_itself(tmp_path: Path, model: Model) -> None:
    image = photograph(tmp_path, "jpg")
    target = io.BytesIO()
    Image.new("L", (96, 80)).save(target, "PNG")
    response = answer(model, Request(image, target.getvalue()))
    assert response.output("completed") == image
    assert response.report["has_hole"] is False


def test_what_is_wrong_with_a_request(tmp_path: Path, model: Model) -> None:
    image, mask = photograph(tmp_path, "jpg"), mask_file()
    bad = TritonError.INVALID_ARG
    for request, message in (
        (Request(b"", mask), "image: the photograph: not a picture that can be read"),
        (Request(image, b"GIF"), "mask: the mask: not a picture that can be read"),
        (Request(image[:900], mask), "image: the photograph: cannot be read"),
        (Request(None, mask), "image: missing, expected the bytes of a photograph"),
        (
            Request(image, mask_file((90, 80))),
            "mask: the mask: the mask is 90x80 pixels, expected 96x80 as the picture",
        ),
        (Request(image), "mask: the photograph: has no alpha channel"),
        (Request(image, mask, format="gif"), "parameter format: result.gif: unknown picture format '.gif', expected"),
        (Request(image, mask, dilate=-1), "parameters: a value is of the wrong kind: Expected `int` >= 0"),
        (Request(image, mask, dilate="3"), "parameters: a value is of the wrong kind: Expected `int`"),
        (Request(image, mask, dilated=3), "parameters: unknown keys ['dilated']"),
    ):
        code, text = fault(model, request)
        assert (code, text[: len(message)]) == (bad, message)
    code, text = fault(model, Request(photograph(tmp_path, "png", "RGBA"), mask, format="jpg"))
    assert (code, text) == (
        bad,
        "parameter format: the result: JPEG cannot hold the picture's alpha channel, expected PNG, WebP or TIFF",
    )


def test_one_fault_does_not_reach_another_request(tmp_path: Path, model: Model) -> None:
    image, mask = photograph(tmp_path, "jpg"), mask_file()
    first, second = model.execute([Request(b"", mask), Request(image, mask)])
    assert first.error is not None
    assert second.output("completed") == answer(model, Request(image, mask)).output("completed")


def test_a_fault_of_the_network_is_the_servers(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any) -> None:
        raise GraphError("ONNX Runtime failed")

    monkeypatch.setattr(model._inpainter.backend, "_run", fail)
    assert fault(model, Request(photograph(tmp_path, "png"), mask_file())) == (
        TritonError.INTERNAL,
        "ONNX Runtime failed",
    )


def test_parameters_are_checked() -> None:
    assert PhotoRequest.from_json("") == PhotoRequest.from_json("{}") == PhotoRequest()
    assert PhotoRequest.from_json('{"dilate": 2, "detail": false}') == PhotoRequest(dilate=2, detail=False)
    for text in ("[]", "{", '{"detail": 1}', '{"format": null}'):
        with pytest.raises(PictureError, match="parameters: "):
            PhotoRequest.from_json(text)


def test_workers_share_the_cores(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(8)), raising=False)
    for workers, threads in ((1, 8), (3, 2), (99, 1)):
        monkeypatch.setattr(cores, "_limit", None)
        opened = Model()
        opened.initialize(arguments(repository, workers))
        assert cores.available_cores() == threads
        opened.finalize()
    with pytest.raises(GraphError, match="the backend is closed"):
        opened._inpainter.backend.run(np.zeros((1, 64, 64, 3), np.uint8), np.zeros((1, 64, 64), np.uint8))


def test_what_ships_is_checked_on_this_cpu(tmp_path: Path) -> None:
    write_repository(tmp_path / "models", read_network())
    opened = Model()
    try:
        opened.initialize(arguments(tmp_path / "models"))
    except CpuError as error:
        pytest.skip(f"this CPU does not compute the INT8 graph: {error}")
    assert opened._inpainter.warning is None
    assert Utils.Logger.lines == ["cisi-photo: network.onnx: onnxruntime on the CPU, the default for graphs"]
    opened.finalize()
    (tmp_path / "models/cisi-photo/1/network.golden.npz").unlink()
    opened.initialize(arguments(tmp_path / "models"))
    assert "network.golden.npz is not beside it, so this CPU could not be checked" in Utils.Logger.lines[-1]
    opened.finalize()
