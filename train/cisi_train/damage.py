"""What PyTorch and NumPy may raise for a damaged or foreign file of tensors, and what of it is worth telling."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
import zlib

from cisi_runtime.errors import NO_MEMORY

DAMAGE = (
    *(pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError),
    *(AssertionError, ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile, zlib.error),
)

# Characters of a reason.
_LONGEST = 300
# What PyTorch writes for terminals.
_ESCAPE_CODES = re.compile(r"\x1b\[[0-9;]*m")
# Where its C++ code found the fault.
_PLACE = re.compile(r"^\[enforce fail at [^\]]*\]\s*\.?\s*")


def damage_reason(error: BaseException) -> str:
    """The error's first sentence as one line of plain text. PyTorch's advice to load a file with whatever code is in it
    is left out."""
    text = _ESCAPE_CODES.sub("", str(error)).strip()
    if isinstance(error, pickle.UnpicklingError) and "Weights only load failed" in text:
        return "it holds other things than tensors, numbers and text, or is damaged; nothing in it was run"
    if isinstance(error, MemoryError):
        return NO_MEMORY
    first = _PLACE.sub("", text.splitlines()[0]) if text else ""
    return " ".join(first.split())[:_LONGEST] or type(error).__name__
