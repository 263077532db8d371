"""Runtime: the contract of the graph, pictures, masks, metrics, backends, parity and the commands that people run.

Imports neither torch nor onnx, and a backend's library only in that backend's file.
"""

from cisi_runtime.contract import Contract
from cisi_runtime.errors import CisiError
from cisi_runtime.inpainter import Inpainter

__all__ = ["CisiError", "Contract", "Inpainter"]
