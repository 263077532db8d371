"""INT8 calibration of CISI-net graphs: activation ranges, Q/DQ placement, verdict. `calibrate` does all of it.

`calibrate`, `CalibrationOptions` and `choose_photographs` are imported when they are first used, because they load
onnx.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cisi_calibration.photographs import choose_photographs
    from cisi_calibration.quantisation import Calibration, CalibrationOptions, calibrate

__all__ = ["Calibration", "CalibrationOptions", "calibrate", "choose_photographs"]

_LAZY = {
    "Calibration": "quantisation",
    "CalibrationOptions": "quantisation",
    "calibrate": "quantisation",
    "choose_photographs": "photographs",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
