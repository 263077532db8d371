"""The runtime of CISI-net: `inpaint` and `Inpainter` for photographs, `build` for engines, `check_parity` for both.

Imports neither torch nor onnx. Each backend imports its library only when it is opened; `build` and `check_parity` are
imported when they are first used, because they load ONNX Runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cisi_runtime.contract import Contract
from cisi_runtime.errors import CisiError
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.one_call import inpaint

if TYPE_CHECKING:
    from cisi_runtime.building.make import build
    from cisi_runtime.parity.checks import check_parity

    __version__: str

__all__ = ["CisiError", "Contract", "Inpainter", "__version__", "build", "check_parity", "inpaint"]

_LAZY = {"build": "cisi_runtime.building.make", "check_parity": "cisi_runtime.parity.checks"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("cisi-net")
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
