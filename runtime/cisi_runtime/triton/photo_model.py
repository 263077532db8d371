"""The model `cisi-photo`: the bytes of a photograph and its mask in, the bytes of the completed photograph out."""

from __future__ import annotations

import ctypes
import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from msgspec import Meta

from cisi_runtime.backends.cores import available_cores, limit_cores
from cisi_runtime.batch.photograph import (
    CompletedPhotograph,
    EncodedPicture,
    HoleOptions,
    Labels,
    PhotographOptions,
    complete_photograph,
)
from cisi_runtime.errors import CisiError, OutputError, PictureError, error_prefix
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.pictures.pillow import prepare_for_photographs
from cisi_runtime.pictures.writing import format_of
from cisi_runtime.strict_json import convert, parse_json

# What stands before an error: the input or parameter that brought it.
_LABELS = Labels(image="image", mask="mask", alpha="mask", output="parameter format")
_WARM_UP_SIZES = [(256, 256)]
# The name that NumPy expects of a capsule that has been taken.
_TAKEN = b"used_dltensor"


@dataclasses.dataclass(frozen=True)
class PhotoRequest:
    """The parameters of a request.

    invert_mask: black is the hole.
    dilate: pixels by which the hole grows.
    detail: whether the fill gets texture.
    format: suffix of the result's format, as "png"; empty: that of the photograph.
    """

    invert_mask: bool = False
    dilate: Annotated[int, Meta(ge=0)] = 0
    detail: bool = True
    format: str = ""

    @classmethod
    def from_json(cls, text: str) -> PhotoRequest:
        """Read and check. Raises PictureError for an unknown parameter, or one of another type or out of range."""
        given = parse_json(text, "parameters", PictureError) if text else {}
        return convert(dataclasses.asdict(cls()) | given, cls, "parameters", PictureError)

    @property
    def output_format(self) -> str | None:
        """Pillow's name of the format, None for that of the photograph. Raises OutputError for an unknown one."""
        if not self.format:
            return None
        with error_prefix("parameter format"):
            return format_of(Path(f"result.{self.format}"))


class PhotoModel:
    """A model of Triton's Python backend. `model.py` in the repository derives from it and sets `utils`.

    The same bytes as `cisi-run` writes. An error of ours becomes the request's error, with its message; the status is
    400 where the request is at fault.
    """

    # The module `triton_python_backend_utils`, which exists inside of Triton alone.
    utils: ClassVar[Any]

    def initialize(self, args: dict[str, str]) -> None:
        """Open the network that lies beside model.py and run it once. args: as Triton passes them."""
        prepare_for_photographs()
        config = json.loads(args["model_config"])
        workers = sum(group["count"] for group in config["instance_group"])
        cores = max(1, available_cores() // workers)
        limit_cores(cores)
        folder = Path(args["model_repository"]) / args["model_version"]
        (model,) = (path for path in folder.glob("network.*") if path.suffix in (".onnx", ".engine"))
        self._inpainter = Inpainter(model, threads=cores)
        self._without_detail = Inpainter(self._inpainter.backend, detail=False)
        log = self.utils.Logger
        log.log_info(f"{args['model_name']}: {self._inpainter.backend_reason}")
        if self._inpainter.warning is not None:
            log.log_warn(f"{args['model_name']}: {self._inpainter.warning}")
        self._inpainter.warmup(_WARM_UP_SIZES)

    def execute(self, requests: list[Any]) -> list[Any]:
        """A response for each request."""
        return [self._respond(request) for request in requests]

    def finalize(self) -> None:
        """Release the network."""
        self._inpainter.close()

    def _respond(self, request: Any) -> Any:
        timer = StageTimer()
        try:
            done = self._complete(request, timer)
        except CisiError as error:
            is_theirs = isinstance(error, (PictureError, OutputError))
            code = self.utils.TritonError.INVALID_ARG if is_theirs else self.utils.TritonError.INTERNAL
            return self.utils.InferenceResponse(error=self.utils.TritonError(str(error), code))
        return self.utils.InferenceResponse(
            [self._output("completed", done.data), self._output("report", _report(done, timer).encode())]
        )

    def _complete(self, request: Any, timer: StageTimer) -> CompletedPhotograph:
        options = PhotoRequest.from_json(request.parameters())
        inpainter = self._inpainter if options.detail else self._without_detail
        image = self._input(request, "image")
        if image is None:
            raise PictureError("image: missing, expected the bytes of a photograph")
        return complete_photograph(
            EncodedPicture(image, "the photograph"),
            None if (mask := self._input(request, "mask")) is None else EncodedPicture(mask, "the mask"),
            lambda: inpainter,
            PhotographOptions(HoleOptions(options.invert_mask, options.dilate)),
            output="the result",
            output_format=options.output_format,
            timer=timer,
            labels=_LABELS,
        )

    def _input(self, request: Any, name: str) -> bytes | None:
        # Not `as_numpy`: up to Triton 24.10 its arrays have no strides under NumPy 2.
        tensor = self.utils.get_input_tensor_by_name(request, name)
        return None if tensor is None else np.from_dlpack(tensor).tobytes()

    def _output(self, name: str, data: bytes) -> Any:
        # A copy that can be written to: NumPy hands on no other.
        capsule = np.frombuffer(bytearray(data), dtype=np.uint8).__dlpack__()
        tensor = self.utils.Tensor.from_dlpack(name, capsule)
        # Triton (2.51) calls what it took "used_dlpack". NumPy, which looks for the name of the standard, would print
        # an error for each tensor.
        ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), _TAKEN)
        return tensor


def _report(done: CompletedPhotograph, timer: StageTimer) -> str:
    return json.dumps(
        {
            "format": done.format,
            "has_hole": bool(done.hole_mask.any()),
            "largest_change": done.change,
            "not_kept": done.dropped,
            "notes": done.notes,
            "milliseconds": {stage: round(value, 3) for stage, value in timer.milliseconds.items()},
        }
    )
