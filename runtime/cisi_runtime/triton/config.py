"""The `config.pbtxt` of each model: what Triton is told of inputs, outputs, batches, queues and warm-up."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from cisi_runtime.contract import METADATA_KEY, Contract
from cisi_runtime.engines.options import FixedSides
from cisi_runtime.face import IMAGE, BatchSize

# Names of the two models.
NETWORK, PHOTO = "cisi", "cisi-photo"
# How long a request may wait before it is refused. Clients may ask for less, in the parameter "timeout".
QUEUE_TIMEOUT_S = 30
_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}
# Stands for a side that is free while shapes are made: no fixed side has this length.
_FREE = -1
# A field of a message: its name and its value. A message holds fields in their order; names may repeat.
Field = tuple[str, Any]


class Word(str):
    """A name that stands without quotation marks: a value of an enumeration."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True)
class ServedNetwork:
    """A network as Triton will load it.

    contract: of the graph or engine.
    fixed: batch, height and width that it was exported for, None where it takes any.
    max_batch: most pictures that Triton may put together, where the batch is free.
    usual: height and width that it is best with.
    file: name in the folder of the version.
    capability: compute capability of the card that an engine runs on, None for a graph.
    version: of the TensorRT that built an engine, None for a graph.
    data: the bytes of the graph or engine.
    companion: the bytes of an engine's sidecar, or of the golden file that an INT8 graph is checked with.
    """

    contract: Contract
    fixed: FixedSides
    max_batch: int
    usual: tuple[int, int]
    file: str
    data: bytes = dataclasses.field(repr=False)
    companion: bytes | None = dataclasses.field(repr=False)
    capability: str | None = None
    version: str | None = None

    @property
    def batches(self) -> bool:
        """Whether Triton puts requests together. Where the batch is fixed it hands each request on as it is."""
        return self.fixed[0] is None


def network_config(network: ServedNetwork, queue: int) -> str:
    """Of the model `cisi`, the network alone. queue: requests that may wait."""
    contract, face = network.contract, network.contract.io
    batch, height, width = (_FREE if side is None else side for side in network.fixed)
    shapes = face.input_shapes((batch, height, width))
    fields: list[Field] = [
        ("name", NETWORK),
        ("backend", "onnxruntime" if network.capability is None else "tensorrt"),
        ("max_batch_size", network.max_batch if network.batches else 0),
    ]
    data_type = ("data_type", Word(_TYPES[face.dtype.name]))
    # The dims of a model with batches begin behind the batch.
    start = 1 if network.batches else 0
    for name in contract.inputs:
        fields.append(("input", [("name", name), data_type, ("dims", list(shapes[name][start:]))]))
    fields.append(("output", [("name", contract.output), data_type, ("dims", list(shapes[IMAGE][start:]))]))
    fields += _queue(queue)
    if network.capability is None:
        fields.append(("instance_group", _instances("KIND_CPU", 1)))
    else:
        fields.append(("instance_group", _instances("KIND_GPU", 1)))
        # On another card Triton looks for model.plan, does not find it, and says so.
        fields.append(("cc_model_filenames", [("key", network.capability), ("value", network.file)]))
    fields += _warm_up(network)
    fields.append(_parameter(METADATA_KEY, contract.to_json()))
    if network.version is not None:
        fields.append(_parameter("tensorrt_version", network.version))
    return _text(fields)


def photo_config(network: ServedNetwork, queue: int, workers: int) -> str:
    """Of the model `cisi-photo`, from file to file. workers: processes, each with a network of its own."""
    fields: list[Field] = [("name", PHOTO), ("backend", "python"), ("max_batch_size", 0)]
    # The bytes of files. Not TYPE_STRING: Triton up to 24.10 cannot hand strings to NumPy 2 (python_backend, pull
    # request 384), and bytes need no prefix in an HTTP request.
    file = (("data_type", Word("TYPE_UINT8")), ("dims", [-1]))
    fields.append(("input", [("name", "image"), *file]))
    fields.append(("input", [("name", "mask"), *file, ("optional", True)]))
    fields += [("output", [("name", name), *file]) for name in ("completed", "report")]
    # Photographs are never put together; the batcher is there for its queue.
    fields += _queue(queue)
    if network.capability is None:
        fields.append(("instance_group", _instances("KIND_CPU", workers)))
    else:
        # Our backend runs on the first GPU.
        fields.append(("instance_group", [*_instances("KIND_GPU", workers), ("gpus", [0])]))
    fields.append(_parameter(METADATA_KEY, network.contract.to_json()))
    return _text(fields)


def _queue(queue: int) -> list[Field]:
    policy: list[Field] = [
        ("timeout_action", Word("REJECT")),
        ("default_timeout_microseconds", QUEUE_TIMEOUT_S * 1_000_000),
        ("allow_timeout_override", True),
        ("max_queue_size", queue),
    ]
    return [("dynamic_batching", [("default_queue_policy", policy)])]


def _instances(kind: str, count: int) -> list[Field]:
    return [("count", count), ("kind", Word(kind))]


def _warm_up(network: ServedNetwork) -> list[Field]:
    """Runs before Triton is ready: one picture, and the largest batch, which shows whether the memory suffices."""
    face = network.contract.io
    height, width = network.usual
    size: BatchSize = (network.fixed[0] or 1, height, width)
    batches = sorted({1, network.max_batch}) if network.batches else [1]
    start = 1 if network.batches else 0
    samples: list[Field] = []
    for batch in batches:
        sample: list[Field] = [("name", f"{size[0] * batch}x{width}x{height}"), ("batch_size", batch)]
        for name, shape in face.input_shapes(size).items():
            tensor: list[Field] = [
                ("data_type", Word(_TYPES[face.dtype.name])),
                ("dims", list(shape[start:])),
                # Not random_data: as float32, random bytes are often not finite.
                ("zero_data", True),
            ]
            sample.append(("inputs", [("key", name), ("value", tensor)]))
        samples.append(("model_warmup", sample))
    return samples


def _parameter(key: str, text: str) -> Field:
    return "parameters", [("key", key), ("value", [("string_value", text)])]


def _text(fields: list[Field], indent: str = "") -> str:
    """A message in protobuf's text format, a field on each line."""
    lines = []
    for name, value in fields:
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            lines.append(f"{indent}{name} {{\n{_text(value, indent + '  ')}{indent}}}\n")
        else:
            lines.append(f"{indent}{name}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: Any) -> str:
    if isinstance(value, Word):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    # As in JSON: true and false, decimal numbers, strings with \" and \\ and ASCII alone.
    return json.dumps(value)
