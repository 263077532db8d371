"""KServe's v2 protocol: the network itself, for programs that bring arrays in the layout of its contract."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cisi_runtime.backends.kserve import (
    LENGTH_HEADER,
    MAX_JSON_NUMBERS,
    InferRequest,
    datatype_of,
    decode_request,
    encode_response,
)
from cisi_runtime.contract import METADATA_KEY
from cisi_runtime.errors import GraphError
from cisi_runtime.serve.handling import Handling
from cisi_runtime.serve.network_info import NetworkInfo
from cisi_runtime.serve.refusals import RefusalError

MODEL = "cisi"
# Names of the versions that there are.
_VERSIONS = ("1",)
# Bytes of a request: float32 arrays of image and mask, and the JSON before or instead of them.
_BYTES_PER_PIXEL, _JSON_BYTES = 16, 16 << 20


class KserveApi:
    """Handlers of `/v2`."""

    def __init__(self, handling: Handling, *, version: str) -> None:
        self._handling, self._version = handling, version

    async def server(self, _request: Request) -> Response:
        """What the server is."""
        return JSONResponse({"name": "cisi-serve", "version": self._version, "extensions": ["binary_tensor_data"]})

    async def live(self, _request: Request) -> Response:
        """Whether it runs."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """Whether it, or the model, takes work."""
        if "model" in request.path_params:
            self._check_model(request)
        ready = self._handling.is_ready
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def metadata(self, request: Request) -> Response:
        """The model's inputs and outputs."""
        info = self._check_model(request)
        image, hole_mask = info.contract.inputs
        shapes = self._shapes(info)
        kind = datatype_of(info.contract.io.dtype)
        tensors = {
            name: {"name": name, "datatype": kind, "shape": [info.fixed.batch or -1, *shape]}
            for name, shape in shapes.items()
        }
        output = {**tensors[image], "name": info.contract.output}
        return JSONResponse(
            {
                "name": MODEL,
                "versions": list(_VERSIONS),
                "platform": f"cisi_{info.name}",
                "inputs": [tensors[image], tensors[hole_mask]],
                "outputs": [output],
            }
        )

    async def configuration(self, request: Request) -> Response:
        """As Triton gives it; its parameter `cisi_contract` is the graph's contract."""
        info = self._check_model(request)
        shapes = self._shapes(info)
        kind = f"TYPE_{datatype_of(info.contract.io.dtype)}"
        # Where the batch is fixed the dims hold it, and requests are not put together.
        batch = [] if info.fixed.batch is None else [info.fixed.batch]
        inputs = [{"name": name, "data_type": kind, "dims": [*batch, *shape]} for name, shape in shapes.items()]
        return JSONResponse(
            {
                "name": MODEL,
                "platform": f"cisi_{info.name}",
                "max_batch_size": 0 if batch else self._most_pictures(info),
                "input": inputs,
                "output": [{**inputs[0], "name": info.contract.output}],
                "parameters": {METADATA_KEY: {"string_value": info.contract.to_json()}},
            }
        )

    async def infer(self, request: Request) -> Response:
        """Arrays through the network, in batches with the windows of photographs."""
        info = self._check_model(request)
        length = request.headers.get(LENGTH_HEADER)
        if length is not None and not (length.isascii() and length.isdecimal() and len(length) < 19):
            raise RefusalError(400, "wrong-request", f"{LENGTH_HEADER}: {length[:40]!r}, expected a number of bytes")
        most = _BYTES_PER_PIXEL * self._handling.limits.network_pixels + _JSON_BYTES
        async with self._handling.bodies.body(request, most) as body:
            try:
                asked = await asyncio.to_thread(decode_request, body, None if length is None else int(length))
                megapixels = self._check_arrays(info, asked)
            except (GraphError, ValueError) as error:
                raise RefusalError(400, "wrong-request", str(error)) from error
            image, hole_mask = (asked.inputs[name] for name in info.contract.inputs)
            # Of the same shape as the answer, which as JSON keeps every other thread waiting.
            if not asked.binary and image.size > MAX_JSON_NUMBERS:
                reason = f"{info.contract.output}: {image.size} numbers, expected up to {MAX_JSON_NUMBERS} as JSON; "
                raise RefusalError(400, "wrong-request", reason + "ask for it with binary_data")
            try:
                completed = await self._handling.ask_network(
                    request, megapixels, lambda network: network.run(image, hole_mask)
                )
            except ValueError as error:  # sides that the network does not take
                raise RefusalError(400, "wrong-request", str(error)) from error
            outputs = {info.contract.output: completed}
            answer, json_length = await asyncio.to_thread(
                encode_response, MODEL, asked.identity, outputs, binary=asked.binary
            )
        if not asked.binary:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type="application/octet-stream", headers={LENGTH_HEADER: str(json_length)})

    def _check_arrays(self, info: NetworkInfo, asked: InferRequest) -> float:
        """Megapixels of the arrays. Raises GraphError, ValueError, RefusalError (413)."""
        contract, names = info.contract, info.contract.inputs
        if set(asked.inputs) != set(names):
            raise GraphError(f"inputs: got {', '.join(asked.inputs) or 'none'}, expected {' and '.join(names)}")
        if set(asked.outputs) - {contract.output}:
            raise GraphError(f"outputs: got {', '.join(asked.outputs)}, expected {contract.output}")
        size = contract.io.check(*(asked.inputs[name] for name in names))
        pixels, most = size[0] * size[1] * size[2], self._handling.limits.network_pixels
        if pixels > most:
            raise RefusalError(413, "too-many-pixels", f"image: {pixels} pixels, expected at most {most} in a request")
        return pixels / 1e6

    def _check_model(self, request: Request) -> NetworkInfo:
        model, version = request.path_params["model"], request.path_params.get("version", _VERSIONS[0])
        if model != MODEL or version not in _VERSIONS:
            raise RefusalError(404, "unknown-model", f"{model}, version {version}: expected {MODEL}, version 1")
        info = self._handling.workforce.info
        if info is None:
            raise RefusalError(503, "not-ready", "the network is being started", retry_after_s=2.0)
        return info

    def _most_pictures(self, info: NetworkInfo) -> int:
        contract = info.contract
        smallest = [side or contract.min_size for side in (info.fixed.height, info.fixed.width)]
        most = self._handling.limits.network_pixels // (smallest[0] * smallest[1])
        return min(most, info.fixed.limits()[1][0])

    def _shapes(self, info: NetworkInfo) -> dict[str, list[Any]]:
        """Shapes of the inputs without the batch; -1 where any side is taken."""
        shapes = info.contract.io.input_shapes((1, info.fixed.height or -1, info.fixed.width or -1))
        return {name: list(shape[1:]) for name, shape in shapes.items()}
