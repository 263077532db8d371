"""KServe's v2 protocol: the usual client against the service, parity over the wire, and messages that are none."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cisi_runtime.backends.kserve import (
    InferRequest,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.backends.served import ServedModel
from cisi_runtime.cli import parity as command
from cisi_runtime.errors import GraphError
from cisi_runtime.parity.golden import golden_path, load_golden
from tests.conftest import RunMain, TinyGraphs
from tests.runtime.triton.test_config import fixed_graph
from tests.support.service import Service, running

FACES = ("uint8", "tensor")


@pytest.fixture(scope="module", params=FACES)
def served(request: pytest.FixtureRequest, tiny_graphs: TinyGraphs) -> Iterator[tuple[Service, Path]]:
    graph = tiny_graphs["float32", "cpu", request.param]
    with running("--model", graph, "--workers", 1) as service:
        yield service, graph


def inputs_of(graph: Path, batch: int, height: int = 96, width: int = 160) -> dict[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(batch)
    image = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
    hole_mask = np.zeros((batch, height, width), dtype=np.bool_)
    hole_mask[:, 20:70, 30:90] = True
    with OnnxRuntimeBackend(graph) as backend:
        return backend.contract.io.inputs(image, hole_mask)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_triton_s_client_talks_to_it(served: tuple[Service, Path], batch: int, binary: bool) -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

    service, graph = served
    inputs = inputs_of(graph, batch)
    client = InferenceServerClient(service.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("cisi")
    assert client.is_model_ready("cisi", "1")
    assert client.get_server_metadata()["name"] == "cisi-serve"
    metadata = client.get_model_metadata("cisi")
    assert [item["name"] for item in metadata["inputs"]] == ["image", "hole_mask"]
    assert metadata["outputs"][0]["name"] == "completed"
    described = []
    for item in metadata["inputs"]:
        array = inputs[item["name"]]
        assert len(item["shape"]) == array.ndim
        assert all(told in (-1, side) for told, side in zip(item["shape"], array.shape, strict=True))
        tensor = InferInput(item["name"], list(array.shape), item["datatype"])
        tensor.set_data_from_numpy(array, binary_data=binary)
        described.append(tensor)
    outputs = [InferRequestedOutput("completed", binary_data=binary)]
    result = client.infer("cisi", described, outputs=outputs, request_id="r1")
    assert result.get_response()["id"] == "r1"
    with OnnxRuntimeBackend(graph) as backend:
        expected = backend.run(*inputs.values())
    assert np.array_equal(result.as_numpy("completed"), expected)
    client.close()


def test_parity_over_the_wire(served: tuple[Service, Path], run_main: RunMain, tmp_path: Path) -> None:
    service, graph = served
    golden = golden_path(graph)
    status, out, error = run_main(command.main, "--url", service.url, "--golden", golden)
    assert (status, error) == (0, "")
    assert "all pass" in out
    status, out, _ = run_main(command.main, "--url", service.url, "--golden", golden, "--json")
    told = json.loads(out)
    assert (told["artifact"], told["passed"]) == (service.url, True)
    # The golden file of other weights: what ships.
    status, _, error = run_main(command.main, "--url", service.url)
    assert (status, "come from different weights" in error) == (1, True)
    for arguments, words in (
        (("--url", "http://127.0.0.1:9"), "GET /v2/models/cisi/config: "),
        (("--url", "127.0.0.1:8000"), "expected http://HOST:PORT"),
        (("--url", "http://host:notaport"), "expected http://HOST:PORT"),
        (("--url", "http://[::1"), "expected http://HOST:PORT"),
        (("--url", service.url, "--model-name", "other"), "status 404: other, version 1: expected cisi"),
        (("--url", service.url, "--token-file", tmp_path / "none"), "--token-file: "),
    ):
        status, _, error = run_main(command.main, *arguments, "--golden", golden)
        assert status == 1
        assert words in error
    assert run_main(command.main, graph, "--url", service.url)[0] == 2


@pytest.mark.parametrize("face", FACES)
def test_parity_of_a_graph_of_one_batch(tiny_graphs: TinyGraphs, tmp_path: Path, run_main: RunMain, face: str) -> None:
    """Its dims hold the batch. Golden cases of other batches are left out."""
    graph = fixed_graph(tiny_graphs["float32", "cpu", face], tmp_path, 2, None, None)
    golden = golden_path(tiny_graphs["float32", "cpu", face])
    with running("--model", graph, "--workers", 1) as service:
        with ServedModel(service.url) as model:
            assert model.fixed.sides == (2, None, None)
        status, out, error = run_main(command.main, "--url", service.url, "--golden", golden)
    assert (status, error) == (0, "")
    cases = [case for case in load_golden(golden).cases if len(case.image) == 2]
    assert out.startswith(f"parity: {len(cases)} comparison")


def test_a_served_network_that_is_another_fails(tiny_graphs: TinyGraphs, tmp_path: Path, run_main: RunMain) -> None:
    """The epsilon of its norms is wrong, and it brings no golden file that would have kept it from being served."""
    graph = tiny_graphs["float32", "cpu", "uint8"]
    wrong = graph.read_bytes().replace(np.float32(1e-5).tobytes(), np.float32(1e-2).tobytes())
    (tmp_path / "wrong.onnx").write_bytes(wrong)
    with running("--model", tmp_path / "wrong.onnx", "--workers", 1) as service:
        assert any("parity was not checked" in line["message"] for line in service.log)
        status, out, error = run_main(command.main, "--url", service.url, "--golden", golden_path(graph))
    assert status == 1
    assert "comparisons failed" in error
    assert "FAIL" in out


def test_refusals(served: tuple[Service, Path]) -> None:
    service, graph = served
    inputs = inputs_of(graph, 1)
    infer = "/v2/models/cisi/infer"

    def ask(content: bytes, json_length: int | str | None = None) -> tuple[int, str]:
        headers = {} if json_length is None else {"Inference-Header-Content-Length": str(json_length)}
        answer = service.client.post(infer, content=content, headers=headers)
        return answer.status_code, str(answer.json()["error"])

    body, length = encode_request(inputs, "completed")
    assert (
        service.client.post(infer, content=body, headers={"Inference-Header-Content-Length": str(length)}).status_code
        == 200
    )
    assert ask(b"no JSON")[0] == 400
    assert ask(b"[" * 200_000)[0] == 400
    assert ask(body, 1 << 40) == (
        400,
        f"Inference-Header-Content-Length: {1 << 40}, expected at most the {len(body)} bytes of the body",
    )
    assert ask(body, "x")[0] == 400
    assert "expected" in ask(body[:-1], length)[1]
    assert "1 bytes belong to no tensor" in ask(body + b"x", length)[1]
    one, one_length = encode_request({"image": inputs["image"]}, "completed")
    assert "expected image and hole_mask" in ask(one, one_length)[1]
    odd = inputs_of(graph, 1, 100, 160)
    assert "multiples of 16" in ask(*encode_request(odd, "completed"))[1]
    other, other_length = encode_request(inputs, "other")
    assert "expected completed" in ask(other, other_length)[1]
    large = inputs_of(graph, 1, 1024, 1040)
    assert ask(*encode_request(large, "completed"))[0] == 413
    # Numbers as JSON, which nobody else could be served beside.
    text, length = encode_request(inputs_of(graph, 1, 320, 336), "completed")
    text = text.replace(b'"binary_data": true', b'"binary_data": false')
    assert ask(text, length + 1) == (
        400,
        "completed: 322560 numbers, expected up to 300000 as JSON; ask for it with binary_data",
    )
    assert ask(bytes(40_000_000), 10)[0] == 413
    assert ask(body, "9" * 5000)[1].endswith("expected a number of bytes")
    packed = service.client.post(infer, content=body, headers={"Content-Encoding": "gzip"})
    assert packed.status_code == 415


def test_messages_round_trip() -> None:
    tensors = {"a": np.arange(6, dtype=np.uint8).reshape(1, 2, 3), "b": np.ones((2, 2), dtype=np.float32)}
    body, length = encode_request(tensors, "c")
    request = decode_request(body, length)
    assert isinstance(request, InferRequest)
    assert (request.outputs, request.binary) == (("c",), True)
    for name, array in tensors.items():
        assert np.array_equal(request.inputs[name], array)
        assert request.inputs[name].dtype == array.dtype
    for binary in (True, False):
        answer = decode_response(*encode_response("m", "1", tensors, binary=binary))
        assert all(np.array_equal(answer[name], array) for name, array in tensors.items())


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        ({"name": "a", "shape": [2], "datatype": "INT64", "data": [1, 2]}, "datatype INT64, expected UINT8 or FP32"),
        ({"name": "a", "shape": [3], "datatype": "UINT8", "data": [1, 2]}, "2 numbers, expected 3"),
        ({"name": "a", "shape": [2], "datatype": "UINT8", "data": [1, 256]}, "whole numbers from 0 to 255"),
        ({"name": "a", "shape": [2], "datatype": "UINT8", "data": [1, 0.5]}, "whole numbers from 0 to 255"),
        ({"name": "a", "shape": [2], "datatype": "UINT8", "data": ["x", 1]}, "expected numbers"),
        ({"name": "a", "shape": [2], "datatype": "UINT8"}, "numbers"),
        ({"name": "a", "shape": [-2], "datatype": "UINT8", "data": []}, "expected positive numbers"),
        ({"name": "a", "shape": [1 << 40, 1 << 40], "datatype": "UINT8", "data": []}, "expected positive numbers"),
        ({"name": "a", "shape": [1000, 1000], "datatype": "UINT8", "data": []}, "expected up to 300000 numbers"),
        ({"name": "a", "shape": [2], "datatype": "UINT8", "data": [[]] * 40}, "expected up to 300000 numbers of 24"),
        ({"name": "a", "shape": ["x"], "datatype": "UINT8", "data": []}, "Expected `int`"),
        ({"shape": [1], "datatype": "UINT8", "data": [1]}, "missing required field `name`"),
    ],
)
def test_tensors_that_are_none(tensor: dict[str, Any], words: str) -> None:
    with pytest.raises(GraphError, match=words):
        decode_request(json.dumps({"inputs": [tensor]}).encode(), None)


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ("[]", "not one of KServe's protocol"),
        ("no JSON", "not one of KServe's protocol"),
        ("[" * 100_000, "not one of KServe's protocol"),
        ('{"parameters": {"cisi_contract": "x"}}', "not one of KServe's protocol"),
        ('{"parameters": {"cisi_contract": {"string_value": 3}}}', "not one of KServe's protocol"),
        ('{"input": [{"name": "image", "dims": [[1]]}]}', "not one of KServe's protocol"),
        ('{"max_batch_size": "many"}', "not one of KServe's protocol"),
        ('{"parameters": 3}', "not one of KServe's protocol"),
        ('{"parameters": {}}', "has no parameter cisi_contract"),
    ],
)
def test_servers_that_serve_something_else(configuration: str, words: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(configuration.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.raises(Exception, match=words):
        ServedModel(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
