"""A model that another machine serves by KServe's v2 protocol: Triton, or `cisi-serve`."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy.typing as npt

from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.backends.kserve import LENGTH_HEADER, decode_response, encode_request
from cisi_runtime.contract import METADATA_KEY, Contract
from cisi_runtime.errors import ContractError, GraphError

_TIMEOUT_S = 300.0
_CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class _Parameter(msgspec.Struct):
    string_value: str | None = None


class _Input(msgspec.Struct):
    name: str = ""
    dims: list[int] = []


class _Configuration(msgspec.Struct):
    """What is used of a model's configuration in KServe's protocol."""

    parameters: dict[str, _Parameter] = {}
    input: list[_Input] = []
    max_batch_size: int = 0


class ServedModel(Backend):
    """`ServedModel("http://localhost:8000", "cisi")` runs where that server runs. For one thread.

    The contract comes from the model's configuration, where `cisi-triton` and `cisi-serve` put it.
    token: what `cisi-serve --token-file` asks for.

    Raises GraphError when there is no such server or model, ContractError when the model has no contract of ours.
    """

    def __init__(self, url: str, model: str = "cisi", token: str | None = None) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
            faulty = parts.scheme not in _CONNECTIONS or not parts.hostname or parts.query or parts.fragment
        except ValueError:
            faulty = True
        if faulty or parts.hostname is None:
            raise GraphError(f"{url}: expected http://HOST:PORT or https://HOST:PORT")
        self._url, self._model, self._base = url, model, parts.path.rstrip("/")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._connection = _CONNECTIONS[parts.scheme](parts.hostname, port, timeout=_TIMEOUT_S)
        configuration = self._configuration()
        parameter = configuration.parameters.get(METADATA_KEY)
        if parameter is None or parameter.string_value is None:
            raise ContractError(
                f"{url}: model {model} has no parameter {METADATA_KEY}, expected one served by cisi-serve or from a "
                "repository written by cisi-triton"
            )
        contract = Contract.from_json(parameter.string_value)
        super().__init__(f"{model} at {url}", contract, _fixed(configuration, contract))

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inputs = dict(zip(self.contract.inputs, (image, hole_mask), strict=True))
        body, json_length = encode_request(inputs, self.contract.output)
        headers = {LENGTH_HEADER: str(json_length), "Content-Type": "application/octet-stream"}
        answer, length = self._ask("POST", f"/v2/models/{self._model}/infer", body, headers)
        outputs = decode_response(answer, length)
        completed = outputs.get(self.contract.output)
        if completed is None or completed.shape != image.shape or completed.dtype != image.dtype:
            given = {name: (array.dtype.name, array.shape) for name, array in outputs.items()}
            raise GraphError(f"{self._url}: answered {given}, expected {self.contract.output} like the image")
        return completed

    def _close(self) -> None:
        self._connection.close()

    def _configuration(self) -> _Configuration:
        answer, _ = self._ask("GET", f"/v2/models/{self._model}/config")
        try:
            # Not strict: Triton may write the numbers of dims as text.
            return msgspec.json.decode(answer, type=_Configuration, strict=False)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise GraphError(
                f"{self._url}: the configuration of {self._model} is not one of KServe's protocol: {error}"
            ) from error

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[bytes, int | None]:
        """The body of an answer, and the length of its JSON where it holds tensors too."""
        try:
            self._connection.request(method, self._base + path, body, {**self._headers, **(headers or {})})
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise GraphError(f"{self._url}: {method} {path}: {error or type(error).__name__}") from error
        if response.status != 200:
            raise GraphError(f"{self._url}: {method} {path}: status {response.status}: {_error_in(answer)}")
        length = response.getheader(LENGTH_HEADER)
        return answer, int(length) if length is not None and length.isdecimal() else None


def _error_in(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return answer[:200].decode("utf-8", "replace")


def _fixed(configuration: _Configuration, contract: Contract) -> FixedShape:
    """Sides that the model's configuration fixes. Its dims leave the batch out, unless it takes one batch alone."""
    for item in configuration.input:
        if item.name == contract.inputs[0]:
            dims = [-1, *item.dims] if configuration.max_batch_size > 0 else item.dims
            # -1 stands for any.
            sides = [dims[axis] if axis < len(dims) and dims[axis] > 0 else None for axis in contract.io.axes]
            return FixedShape(*sides)
    return FixedShape()
