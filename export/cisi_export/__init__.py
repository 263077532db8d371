"""Export: a checkpoint becomes one ONNX graph, with proof that it is the same network. `export` does all of it.

`export` and `Export` are imported when they are first used, because they load PyTorch and onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cisi_export.exporting import Export, export

__all__ = ["Export", "export"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("cisi_export.exporting"), name)
