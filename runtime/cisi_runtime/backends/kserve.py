"""The messages of KServe's v2 inference protocol, with its extension for binary tensors.

Source: kserve.github.io, "Open Inference Protocol", and Triton's "Binary Tensor Data Extension": a JSON object, then
the bytes of the tensors it names, the length of the JSON in the header `Inference-Header-Content-Length`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from cisi_runtime.errors import GraphError

Array = npt.NDArray[Any]

LENGTH_HEADER = "Inference-Header-Content-Length"
# Numbers that a tensor may have in JSON: those of a picture of 256x256 pixels. The longest float32 has 24 bytes with
# its comma and bracket.
MAX_JSON_NUMBERS, _MAX_NUMBER_BYTES = 300_000, 24
# The protocol's names of the types that our graphs have.
DATATYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}


class _Parameters(msgspec.Struct):
    binary_data_size: int | None = None
    binary_data: bool | None = None
    binary_data_output: bool | None = None


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)
    data: msgspec.Raw = msgspec.Raw(b"")


class _Output(msgspec.Struct):
    name: str
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str = ""
    outputs: list[_Output] | None = None
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class _Response(msgspec.Struct):
    outputs: list[_Tensor]


@dataclasses.dataclass(frozen=True)
class InferRequest:
    """A request as it was understood.

    inputs: tensors by name.
    outputs: names of the tensors to send back; empty: all.
    binary: whether they are sent as bytes.
    """

    identity: str
    inputs: dict[str, Array]
    outputs: tuple[str, ...]
    binary: bool


def datatype_of(dtype: np.dtype[Any]) -> str:
    """The protocol's name of a type. Raises KeyError for one that our graphs do not have."""
    return {kind: name for name, kind in DATATYPES.items()}[dtype]


def encode_request(inputs: dict[str, Array], output: str) -> tuple[bytes, int]:
    """The body of a request for one output as bytes, and the length of its JSON."""
    tensors, blobs = _encode(inputs, binary=True)
    head = {"inputs": tensors, "outputs": [{"name": output, "parameters": {"binary_data": True}}]}
    return _body(head, blobs)


def decode_request(body: bytes, json_length: int | None) -> InferRequest:
    """json_length: from the header; None: all of the body. Raises GraphError for what is not such a request."""
    head, blobs = _parts(body, json_length)
    request = _decoded(head, _Request, "the request")
    outputs = request.outputs or []
    wanted = {output.parameters.binary_data for output in outputs} - {None}
    if len(wanted) > 1:
        raise GraphError("outputs: expected all of them as binary data or none")
    binary = bool(wanted.pop() if wanted else request.parameters.binary_data_output)
    inputs = _tensors(request.inputs, blobs)
    return InferRequest(request.id, inputs, tuple(output.name for output in outputs), binary)


def encode_response(model: str, identity: str, outputs: dict[str, Array], *, binary: bool) -> tuple[bytes, int]:
    """The body of an answer, and the length of its JSON."""
    tensors, blobs = _encode(outputs, binary=binary)
    head = {"model_name": model, "model_version": "1", "outputs": tensors}
    return _body(head | ({"id": identity} if identity else {}), blobs)


def decode_response(body: bytes, json_length: int | None) -> dict[str, Array]:
    """Tensors by name. Raises GraphError for what is not an answer."""
    head, blobs = _parts(body, json_length)
    return _tensors(_decoded(head, _Response, "the answer").outputs, blobs)


def _encode(tensors: dict[str, Array], *, binary: bool) -> tuple[list[dict[str, Any]], list[bytes]]:
    described, blobs = [], []
    for name, array in tensors.items():
        item: dict[str, Any] = {"name": name, "shape": list(array.shape), "datatype": datatype_of(array.dtype)}
        if binary:
            blobs.append(array.tobytes())
            item["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            item["data"] = array.ravel().tolist()
        described.append(item)
    return described, blobs


def _body(head: dict[str, Any], blobs: list[bytes]) -> tuple[bytes, int]:
    text = json.dumps(head).encode()
    return b"".join([text, *blobs]), len(text)


def _parts(body: bytes, json_length: int | None) -> tuple[bytes, bytes]:
    length = len(body) if json_length is None else json_length
    if not 0 <= length <= len(body):
        raise GraphError(f"{LENGTH_HEADER}: {length}, expected at most the {len(body)} bytes of the body")
    return body[:length], body[length:]


def _decoded(head: bytes, kind: type[Any], what: str) -> Any:
    try:
        return msgspec.json.decode(head, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise GraphError(f"{what}: {error}") from error


def _tensors(described: list[_Tensor], blobs: bytes) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    position = 0
    for tensor in described:
        if tensor.name in arrays:
            raise GraphError(f"{tensor.name}: is there twice, expected once")
        if tensor.datatype not in DATATYPES:
            raise GraphError(f"{tensor.name}: datatype {tensor.datatype}, expected {' or '.join(DATATYPES)}")
        dtype = DATATYPES[tensor.datatype]
        if not all(0 < side < 1 << 31 for side in tensor.shape):
            raise GraphError(f"{tensor.name}: shape {tensor.shape}, expected positive numbers")
        count = math.prod(tensor.shape)
        size = tensor.parameters.binary_data_size
        if size is None:
            array = _from_json(tensor, dtype, count)
        else:
            if size != count * dtype.itemsize or position + size > len(blobs):
                raise GraphError(
                    f"{tensor.name}: {size} bytes of {len(blobs) - position}, expected {count * dtype.itemsize} for "
                    f"{tensor.datatype} {tensor.shape}"
                )
            array = np.frombuffer(blobs, dtype, count, position)
            position += size
        arrays[tensor.name] = array.reshape(tensor.shape)
    if position != len(blobs):
        raise GraphError(f"{len(blobs) - position} bytes belong to no tensor")
    return arrays


def _from_json(tensor: _Tensor, dtype: np.dtype[Any], count: int) -> Array:
    """Numbers, flat or nested by the shape. Parsing them holds up everything else, so there may not be many."""
    text = bytes(tensor.data)
    if count > MAX_JSON_NUMBERS or len(text) > _MAX_NUMBER_BYTES * (count + 1):
        raise GraphError(
            f"{tensor.name}: {len(text)} bytes of JSON for {count} numbers, expected up to {MAX_JSON_NUMBERS} numbers "
            f"of {_MAX_NUMBER_BYTES} bytes, or binary data"
        )
    try:
        numbers = np.asarray(msgspec.json.decode(text), dtype=np.float64).ravel()
    except (TypeError, ValueError, RecursionError) as error:
        raise GraphError(f"{tensor.name}: data: expected numbers, flat or nested by the shape") from error
    if numbers.size != count:
        raise GraphError(f"{tensor.name}: {numbers.size} numbers, expected {count} for shape {tensor.shape}")
    array = numbers.astype(dtype)
    if dtype == np.uint8 and not np.array_equal(array, numbers):
        raise GraphError(f"{tensor.name}: expected whole numbers from 0 to 255")
    return array
