"""The errors that users meet. Each message is one line that says what was expected."""

from __future__ import annotations


class CisiError(Exception):
    """Base of all errors that a command reports in one line, with exit status 1."""


class PictureError(CisiError):
    """A picture or mask file cannot be used as it is."""


class ContractError(CisiError):
    """A graph or checkpoint does not say, or not in a way known here, how it wants to be used."""


class GraphError(CisiError):
    """An ONNX file or its golden file is missing, damaged or not one of ours."""


class CheckpointError(CisiError):
    """A checkpoint is missing, damaged, foreign, or of a newer revision."""


class DataError(CisiError):
    """A folder of photographs cannot be used."""


class OutputError(CisiError):
    """A result cannot be written."""


class ParityError(CisiError):
    """Two computations that must be the same network are not."""


class WeightsError(CisiError):
    """Published weights (VGG-16, LPIPS) are missing, cannot be fetched, or are not those that were expected."""


class EngineError(CisiError):
    """A TensorRT engine cannot be built, or is not what was asked."""


class CudaError(CisiError):
    """A call of the CUDA driver failed, or there is no GPU or driver; the call is named."""
