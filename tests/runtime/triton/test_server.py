"""On a real Triton: `cisi-photo` as it is, and the configuration of `cisi` with a stand-in for its backend."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from cisi_runtime.backends.cores import available_cores
from cisi_runtime.backends.graph import read_graph
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.batch.job import Job, run_job
from cisi_runtime.batch.photograph import HoleOptions, PhotographOptions
from cisi_runtime.cli import parity as parity_command
from cisi_runtime.contract import Contract
from cisi_runtime.errors import GraphError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.parity.golden import golden_path
from cisi_runtime.triton.config import NETWORK, PHOTO
from cisi_runtime.triton.repository import read_network, write_repository
from tests.conftest import RunMain
from tests.runtime.triton.test_config import fixed_graph
from tests.support.networks import PHOTOS, ROOT
from tests.support.shared import TIMEOUT_S
from tests.support.triton_server import (
    Installation,
    NotStartedError,
    RunningTriton,
    running_triton,
    stand_in_repository,
)
from tests.test_docs import blocks_of

Graphs = Mapping[tuple[str, str, str], Path]
Pictures = tuple[npt.NDArray[Any], npt.NDArray[Any]]
# The bytes of the completed photograph, and the report.
Completed = tuple[bytes, dict[str, Any]]
WORKERS = 2


@contextlib.contextmanager
def connected(server: RunningTriton) -> Iterator[Any]:
    """A client for one thread. An open connection would delay the server's end."""
    import tritonclient.http

    client = tritonclient.http.InferenceServerClient(
        server.url, connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
    )
    try:
        yield client
    finally:
        client.close()


def infer(server: RunningTriton, model: str, inputs: list[Any], **options: Any) -> Any:
    """The result of one request."""
    with connected(server) as client:
        return client.infer(model, inputs, **options)


def tensor(name: str, array: npt.NDArray[Any]) -> Any:
    import tritonclient.http
    from tritonclient.utils import np_to_triton_dtype

    made = tritonclient.http.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# cisi-photo


@pytest.fixture(scope="module")
def photo_server(
    triton_installation: Installation, tiny_graph: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningTriton]:
    """With the model `cisi-photo` alone: the wheel has no backend for the other."""
    folder = tmp_path_factory.mktemp("photo_server")
    write_repository(folder / "models", read_network(tiny_graph), workers=WORKERS)
    (folder / "models" / NETWORK).rename(folder / NETWORK)
    with running_triton(triton_installation, folder / "models", folder) as server:
        yield server


def complete(server: RunningTriton, image: bytes, mask: bytes | None, **parameters: Any) -> Completed:
    files = {"image": image} | ({} if mask is None else {"mask": mask})
    inputs = [tensor(name, np.frombuffer(data, dtype=np.uint8)) for name, data in files.items()]
    result = infer(server, PHOTO, inputs, parameters=parameters or None)
    return result.as_numpy("completed").tobytes(), json.loads(result.as_numpy("report").tobytes())


def make_photographs(folder: Path) -> dict[str, tuple[Path, Path | None]]:
    """Photographs of several formats and sizes, and their masks; None where the hole is transparent."""
    rng = np.random.default_rng(9)
    made: dict[str, tuple[Path, Path | None]] = {
        name: (PHOTOS / f"{name}.jpg", PHOTOS / f"{name}.mask.png") for name in ("beetle", "balloon")
    }
    for name, size in (("odd.png", (101, 67)), ("large.webp", (700, 420)), ("small.tif", (31, 33))):
        image, mask = folder / name, folder / f"{name}.mask.png"
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(image)
        hole = np.zeros((size[1], size[0]), dtype=np.uint8)
        hole[size[1] // 4 : size[1] // 2, size[0] // 4 : size[0] // 2] = 255
        Image.fromarray(hole).save(mask)
        made[name] = image, mask
    alpha = Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    alpha.putalpha(Image.fromarray(np.pad(np.zeros((30, 30), np.uint8), ((20, 40), (30, 60)), constant_values=255)))
    alpha.save(folder / "alpha.png")
    made["alpha.png"] = folder / "alpha.png", None
    with Image.open(made["beetle"][0]) as image_with_tags:
        exif = Image.Exif()
        exif[0x010F], exif[0x0112] = "a camera", 6
        image_with_tags.resize((260, 200)).save(folder / "tags.jpg", exif=exif, dpi=(300, 300), quality=83)
    with Image.open(made["beetle"][1] or "") as mask_image:
        mask_image.resize((260, 200)).transpose(Image.Transpose.ROTATE_270).save(folder / "tags.mask.png")
    made["tags"] = folder / "tags.jpg", folder / "tags.mask.png"
    return made


def test_the_bytes_of_cisi_run_also_at_the_same_time(
    photo_server: RunningTriton, tiny_graph: Path, tmp_path: Path
) -> None:
    photographs = make_photographs(tmp_path)
    threads = max(1, available_cores() // WORKERS)
    expected = {}
    with Inpainter(tiny_graph, threads=threads) as inpainter:
        for name, (image, mask) in photographs.items():
            output = tmp_path / f"out.{name}{image.suffix}"
            done = run_job(Job(image, mask, output), lambda: inpainter)
            expected[name] = output.read_bytes(), done

    def ask(name: str) -> Completed:
        image, mask = photographs[name]
        return complete(photo_server, image.read_bytes(), None if mask is None else mask.read_bytes())

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, [*photographs, *photographs]))
    for name, (completed, report) in zip([*photographs, *photographs], answers, strict=True):
        data, done = expected[name]
        assert completed == data, name
        assert (report["format"], report["largest_change"]) == (done.format, done.change)
        assert report["not_kept"] == list(done.dropped)
        assert report["milliseconds"]["run"] > 0


def test_options_reach_the_model(photo_server: RunningTriton, tiny_graph: Path, tmp_path: Path) -> None:
    image, mask = PHOTOS / "beetle.jpg", PHOTOS / "beetle.mask.png"
    output = tmp_path / "out.png"
    with Inpainter(tiny_graph, threads=max(1, available_cores() // WORKERS), detail=False) as inpainter:
        run_job(Job(image, mask, output), lambda: inpainter, PhotographOptions(HoleOptions(invert=False, dilate=4)))
    options = {"dilate": 4, "detail": False, "format": "png", "invert_mask": False}
    completed, report = complete(photo_server, image.read_bytes(), mask.read_bytes(), **options)
    assert completed == output.read_bytes()
    assert report["format"] == "PNG"


def test_errors_arrive_and_the_next_request_is_answered(photo_server: RunningTriton, tmp_path: Path) -> None:
    from tritonclient.utils import InferenceServerException

    image, mask = (PHOTOS / "beetle.jpg").read_bytes(), (PHOTOS / "beetle.mask.png").read_bytes()
    Image.new("L", (5, 6)).save(tmp_path / "tiny.png")
    for arguments, options, message in (
        ((b"no picture", mask), {}, "image: the photograph: not a picture that can be read, expected JPEG, PNG"),
        ((b"", mask), {}, "image: the photograph: not a picture"),
        ((image, (tmp_path / "tiny.png").read_bytes()), {}, "mask: the mask: the mask is 5x6 pixels, expected "),
        ((image, None), {}, "mask: the photograph: has no alpha channel"),
        ((image, mask), {"format": "gif"}, "parameter format: result.gif: unknown picture format"),
        ((image, mask), {"dilated": 3}, "parameters: unknown keys ['dilated']"),
    ):
        with pytest.raises(InferenceServerException) as raised:
            complete(photo_server, *arguments, **options)
        assert message in raised.value.message()
        assert raised.value.status() == "400"
    assert complete(photo_server, image, mask)[1]["format"] == "JPEG"


def as_documented(server: RunningTriton, folder: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> str:
    """The example in docs/triton.md with a word in it, for this server, in a folder with the files that it names."""
    (block,) = (block for block in blocks_of(ROOT / "docs" / "triton.md") if word in block.text)
    for source, name in (("beetle.jpg", "photo.jpg"), ("beetle.mask.png", "mask.png")):
        (folder / name).write_bytes((PHOTOS / source).read_bytes())
    monkeypatch.chdir(folder)
    assert "localhost:8000" in block.text
    return block.text.replace("localhost:8000", server.url)


def test_photographs_as_documented(
    photo_server: RunningTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = (PHOTOS / "beetle.mask.png").read_bytes()
    exec(as_documented(photo_server, tmp_path, monkeypatch, 'client.infer("cisi-photo"'), {})
    expected, _ = complete(photo_server, (PHOTOS / "beetle.jpg").read_bytes(), mask, dilate=5)
    assert (tmp_path / "out.jpg").read_bytes() == expected
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    script = as_documented(photo_server, tmp_path, monkeypatch, "cisi-photo/infer")
    subprocess.run(["bash", "-euc", script], check=True, timeout=TIMEOUT_S)
    expected, _ = complete(photo_server, (PHOTOS / "beetle.jpg").read_bytes(), mask)
    assert (tmp_path / "out.jpg").read_bytes() == expected


def test_clients_read_the_contract(photo_server: RunningTriton, tiny_graph: Path) -> None:
    with connected(photo_server) as client:
        config = client.get_model_config(PHOTO)
    assert Contract.from_json(config["parameters"]["cisi_contract"]["string_value"]) == read_graph(tiny_graph).contract
    assert config["instance_group"][0]["count"] == WORKERS


@pytest.mark.slow
def test_a_network_that_cannot_be_opened_is_told(
    triton_installation: Installation, tiny_graph: Path, tmp_path: Path
) -> None:
    write_repository(tmp_path / "models", read_network(tiny_graph))
    (tmp_path / "models" / NETWORK).rename(tmp_path / NETWORK)
    (tmp_path / "models" / PHOTO / "1" / "network.onnx").write_bytes(b"damaged")
    with (
        pytest.raises(NotStartedError, match="network.onnx: is not an ONNX file"),
        running_triton(triton_installation, tmp_path / "models", tmp_path),
    ):
        pass


# cisi, with ONNX Runtime in Triton's Python backend


@pytest.fixture(scope="module", params=["uint8", "tensor"])
def network_server(
    request: pytest.FixtureRequest,
    triton_installation: Installation,
    tiny_graphs: Graphs,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningTriton, Path, Path]]:
    """A server, the graph that it runs, and the folder of its model."""
    graph = tiny_graphs["float32", "cpu", request.param]
    folder = tmp_path_factory.mktemp(f"network_server_{request.param}")
    stand_in_repository(folder / "models", graph, queue=6)
    with running_triton(triton_installation, folder / "models", folder) as server:
        yield server, graph, folder / "models" / NETWORK


def pictures(graph: Path, batch: int, height: int, width: int, seed: int = 0) -> Pictures:
    """In the layout of the graph's face."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    hole = rng.random((batch, height, width)) < 0.3
    inputs = read_graph(graph).contract.io.inputs(image, hole)
    return inputs["image"], inputs["hole_mask"]


def inputs_of(arrays: Pictures) -> list[Any]:
    return [tensor(name, array) for name, array in zip(("image", "hole_mask"), arrays, strict=True)]


def batches(model: Path) -> list[list[list[int]]]:
    return [json.loads(line) for line in (model / "batches.jsonl").read_text().splitlines()]


@contextlib.contextmanager
def held(model: Path) -> Iterator[None]:
    """The model finishes nothing until the block ends."""
    hold = model / "hold"
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()


def test_what_the_network_gives(network_server: tuple[RunningTriton, Path, Path]) -> None:
    server, graph, _ = network_server
    with OnnxRuntimeBackend(graph, threads=1) as backend:
        for seed, size in enumerate([(1, 64, 64), (2, 64, 96), (1, 160, 128), (4, 64, 64), (2, 160, 128)]):
            arrays = pictures(graph, *size, seed)
            completed = infer(server, NETWORK, inputs_of(arrays)).as_numpy("completed")
            assert np.array_equal(completed, backend.run(*arrays))


def test_the_configuration_on_the_wire(network_server: tuple[RunningTriton, Path, Path]) -> None:
    server, graph, _ = network_server
    contract = read_graph(graph).contract
    with connected(server) as client:
        config, metadata = client.get_model_config(NETWORK), client.get_model_metadata(NETWORK)
    assert Contract.from_json(config["parameters"]["cisi_contract"]["string_value"]) == contract
    assert config["max_batch_size"] == 4
    free = {name: list(shape) for name, shape in contract.io.input_shapes((-1, -1, -1)).items()}
    assert {tensor["name"]: tensor["shape"] for tensor in metadata["inputs"]} == free
    assert [(tensor["name"], tensor["shape"]) for tensor in metadata["outputs"]] == [("completed", free["image"])]
    data_type = "UINT8" if contract.io.takes_pixels else "FP32"
    assert {tensor["datatype"] for tensor in (*metadata["inputs"], *metadata["outputs"])} == {data_type}


def test_the_network_as_documented(
    network_server: tuple[RunningTriton, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, graph, _ = network_server
    names: dict[str, Any] = {}
    exec(as_documented(server, tmp_path, monkeypatch, 'client.infer("cisi", inputs)'), names)
    with OnnxRuntimeBackend(graph, threads=1) as backend:
        expected = backend.contract.io.pixels(backend.run_pixels(names["image"], names["hole_mask"]))
    assert np.array_equal(names["completed"], expected)


def test_warm_up_came_first(network_server: tuple[RunningTriton, Path, Path]) -> None:
    _, graph, model = network_server
    image = read_graph(graph).contract.io.input_shapes((1, 256, 256))["image"]
    warm = batches(model)[:2]
    # Triton may hand the largest batch over as one request, or as one for each picture.
    assert warm[0] == [list(image)]
    assert sum(shape[0] for shape in warm[1]) == 4
    assert all(shape[1:] == list(image[1:]) for shape in warm[1])


def test_waiting_requests_of_one_size_share_a_batch(network_server: tuple[RunningTriton, Path, Path]) -> None:
    server, graph, model = network_server
    sizes = [(1, 64, 64), (1, 64, 96)]
    first = pictures(graph, 1, 80, 80)
    waiting = [pictures(graph, *sizes[0], seed) for seed in range(5)] + [pictures(graph, *sizes[1], 7)]
    before = len(batches(model))
    with ThreadPoolExecutor(8) as pool:
        with held(model):
            running = pool.submit(infer, server, NETWORK, inputs_of(first))
            wait_until(lambda: len(batches(model)) == before + 1)
            answers = [pool.submit(infer, server, NETWORK, inputs_of(arrays)) for arrays in waiting]
            wait_until(lambda: server.waiting(NETWORK) == len(waiting))
        results = [answer.result(TIMEOUT_S).as_numpy("completed") for answer in [running, *answers]]
    with OnnxRuntimeBackend(graph, threads=1) as backend:
        for arrays, result in zip([first, *waiting], results, strict=True):
            # A batch may round otherwise than a single picture; uint8 pixels differ by a level then.
            tolerance = 1 if result.dtype == np.uint8 else 1e-4
            assert np.abs(result.astype(np.float64) - backend.run(*arrays)).max() <= tolerance
    after = batches(model)[before + 1 :]
    shapes = {size: list(read_graph(graph).contract.io.input_shapes(size)["image"]) for size in sizes}
    assert all(shape == batch[0] for batch in after for shape in batch), "one size in a batch"
    assert max(map(len, after)) <= 4
    assert Counter(json.dumps(shape) for batch in after for shape in batch) == {
        json.dumps(shapes[sizes[0]]): 5,
        json.dumps(shapes[sizes[1]]): 1,
    }
    assert len(after) < len(waiting), "some shared a batch"


def test_a_full_queue_refuses_at_once(network_server: tuple[RunningTriton, Path, Path]) -> None:
    from tritonclient.utils import InferenceServerException

    server, graph, model = network_server
    arrays = pictures(graph, 1, 64, 64)
    before = len(batches(model))
    with ThreadPoolExecutor(8) as pool:
        with held(model):
            answers = [pool.submit(infer, server, NETWORK, inputs_of(arrays))]
            wait_until(lambda: len(batches(model)) == before + 1)
            answers += [pool.submit(infer, server, NETWORK, inputs_of(arrays)) for _ in range(6)]
            wait_until(lambda: server.waiting(NETWORK) == 6)
            with pytest.raises(InferenceServerException, match="Exceeds maximum queue size") as raised:
                infer(server, NETWORK, inputs_of(arrays))
            assert raised.value.status() == "503"
        assert all(answer.result(TIMEOUT_S).as_numpy("completed") is not None for answer in answers)


def test_a_client_may_wait_less_long(network_server: tuple[RunningTriton, Path, Path]) -> None:
    from tritonclient.utils import InferenceServerException

    server, graph, model = network_server
    arrays = pictures(graph, 1, 64, 64)
    before = len(batches(model))
    with ThreadPoolExecutor(8) as pool:
        with held(model):
            running = pool.submit(infer, server, NETWORK, inputs_of(arrays))
            wait_until(lambda: len(batches(model)) == before + 1)
            late = pool.submit(infer, server, NETWORK, inputs_of(arrays), timeout=1000)
            wait_until(lambda: server.waiting(NETWORK) == 1)
            time.sleep(0.05)  # longer than these 1000 microseconds
        assert running.result(TIMEOUT_S).as_numpy("completed") is not None
        with pytest.raises(InferenceServerException, match="Request timeout expired"):
            late.result(TIMEOUT_S)


def test_wrong_tensors_are_refused(network_server: tuple[RunningTriton, Path, Path]) -> None:
    from tritonclient.utils import InferenceServerException

    server, graph, _ = network_server
    image, hole_mask = pictures(graph, 1, 64, 64)
    face = read_graph(graph).contract.io
    wrong_type = image.astype(np.float32 if face.takes_pixels else np.uint8)
    four = np.concatenate([image, image[..., :1] if face.takes_pixels else image[:, :1]], 3 if face.takes_pixels else 1)
    for arrays, message in (
        ((wrong_type, hole_mask), "inference input 'image' data-type is"),
        ((np.ascontiguousarray(four), hole_mask), "unexpected shape for input 'image'"),
        (pictures(graph, 5, 64, 64), "inference request batch-size must be <= 4"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            infer(server, NETWORK, inputs_of(arrays))
    with pytest.raises(InferenceServerException, match="expected 2 inputs but got 1"):
        infer(server, NETWORK, inputs_of((image, hole_mask))[:1])


@pytest.mark.slow
def test_a_fixed_batch_is_handed_on_as_it_is(
    triton_installation: Installation, tiny_graph: Path, tmp_path: Path
) -> None:
    from tritonclient.utils import InferenceServerException

    graph = fixed_graph(tiny_graph, tmp_path, 2, 64, 96)
    stand_in_repository(tmp_path / "models", graph)
    arrays = pictures(graph, 2, 64, 96)
    with running_triton(triton_installation, tmp_path / "models", tmp_path) as server:
        result = infer(server, NETWORK, inputs_of(arrays)).as_numpy("completed")
        with pytest.raises(InferenceServerException, match="unexpected shape for input .* Expected .2,64,96"):
            infer(server, NETWORK, inputs_of(pictures(graph, 1, 64, 96)))
    with OnnxRuntimeBackend(graph, threads=1) as backend:
        assert np.array_equal(result, backend.run(*arrays))
    assert batches(tmp_path / "models" / NETWORK) == [[[2, 64, 96, 3]]] * 2
    with pytest.raises(GraphError, match="takes 2 pictures at a time"):
        read_network(graph, 4)


def test_parity_over_the_wire(
    triton_installation: Installation, tiny_graph: Path, tmp_path: Path, run_main: RunMain
) -> None:
    """`cisi-parity --url` judges what Triton serves as it judges a file."""
    stand_in_repository(tmp_path / "models", tiny_graph)
    golden = golden_path(tiny_graph)
    with running_triton(triton_installation, tmp_path / "models", tmp_path) as server:
        arguments = ("--url", f"http://{server.url}", "--golden", golden)
        status, out, error = run_main(parity_command.main, *arguments)
        assert (status, error) == (0, "")
        assert "all pass" in out
        status, _, error = run_main(parity_command.main, *arguments, "--model-name", "other")
        assert status == 1
        assert "unknown model: 'other'" in error
