"""The errors that users meet. Each message is one line that says what was expected."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# What a MemoryError is called. Those of libraries have no text, or speak of arrays.
NO_MEMORY = "there is not enough memory for it"


class CisiError(Exception):
    """Base class. A command reports it in one line and exits with status 1."""

    def __str__(self) -> str:
        """The message in one line of printable characters. It may quote names and values of a file, which may be made
        to clear a terminal or to forge lines of a log."""
        return "".join(_printable(character) for character in super().__str__())


class PictureError(CisiError):
    """A picture or mask file cannot be used as it is."""


class TooManyPixelsError(PictureError):
    """A picture is larger than the caller allows."""


class MaskError(PictureError):
    """A mask can be read and does not fit its photograph, or is no mask."""


class ContractError(CisiError):
    """A graph or checkpoint has no contract, or one that this version does not understand."""


class GraphError(CisiError):
    """An ONNX file or its golden file is missing, damaged or not one of ours."""


class BackendError(GraphError):
    """A backend is not installed, or does not run such a file or precision."""


class CpuError(GraphError):
    """This CPU does not compute what an INT8 graph says."""


class CheckpointError(CisiError):
    """A checkpoint is missing, damaged, foreign or of a newer revision."""


class DataError(CisiError):
    """A folder of photographs cannot be used."""


class OutputError(CisiError):
    """A result cannot be written."""


class StorageError(CisiError):
    """An address is none, or its store does not do what it was asked for."""


class HubError(CisiError):
    """A folder or a model repository does not give one graph: missing, refused, interrupted, or several."""


class ClusterError(CisiError):
    """A cluster cannot be used."""


class ParityError(CisiError):
    """Two computations that must be the same network are not."""


class WeightsError(CisiError):
    """Published weights (VGG-16, LPIPS) are missing, cannot be fetched, or are not the expected ones."""


class EngineError(CisiError):
    """A TensorRT engine cannot be built, or is not what was asked for."""


class ServiceError(CisiError):
    """A service cannot be started."""


class CudaError(CisiError):
    """A call of the CUDA driver failed, or there is no GPU or driver. The message names the call."""


@contextlib.contextmanager
def error_prefix(name: str) -> Iterator[None]:
    """Put a name, usually that of a command-line option, in front of a CisiError that the block raises."""
    try:
        yield
    except CisiError as error:
        raise type(error)(f"{name}: {error}") from error


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else ascii(character)[1:-1]
