"""The archive under a checkpoint: what may be in it, looked at before and after PyTorch reads it.

`torch.load(weights_only=True)` runs no code of the file. It still makes what the file asks for: tensors without data,
sparse and quantised ones, views of terabytes, buffers of any length. A checkpoint of ours needs none of them.
"""

from __future__ import annotations

import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cisi_runtime.errors import CheckpointError
from cisi_train.damage import DAMAGE, damage_reason

# All that `torch.save` names for float32 and float16 tensors in dictionaries, lists and tuples.
_ALLOWED_NAMES = frozenset(
    {"torch._utils _rebuild_tensor_v2", "collections OrderedDict", "torch FloatStorage", "torch HalfStorage"}
)
_DTYPES = (torch.float32, torch.float16)
# Of the pickle, which holds names, shapes and numbers. The `last.pt` of the largest architecture allowed has 0.3 MB.
_MAX_PICKLE_BYTES = 1 << 20
# Ours have 8. Python hashes nested tuples by recursion in C, and a million levels end the process.
_MAX_DEPTH = 100
_MARK, _SLICE = pickletools.markobject, pickletools.stackslice


def load_archive(path: Path) -> Any:
    """What `torch.save` wrote: dictionaries of float32 and float16 tensors, numbers and text.

    No more memory is used than a small multiple of the file's size. Raises CheckpointError.
    """
    try:
        _check_members(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except DAMAGE as error:
        raise CheckpointError(f"{path}: cannot be read as a checkpoint: {damage_reason(error)}") from error


def _check_members(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed, expected an archive as torch.save writes it")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("its members overlap")
        for member in members:
            if member.filename.endswith("data.pkl"):
                if member.file_size > _MAX_PICKLE_BYTES:
                    raise ValueError(f"{member.filename} has {member.file_size} bytes, at most {_MAX_PICKLE_BYTES}")
                _check_pickle(archive.read(member))


def _check_pickle(data: bytes) -> None:
    """Raise ValueError for names that are not ours and for deep nesting. The stack that unpickling would have is
    followed with depths in place of values."""
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name == "GLOBAL" and argument not in _ALLOWED_NAMES:
            raise ValueError(f"it holds {argument!r:.80}, expected tensors of float32 or float16, numbers and text")
        if opcode.name == "MARK":
            marks.append(len(stack))
        elif opcode.name.endswith("PUT"):
            memo[argument] = stack[-1]
        elif opcode.name.endswith("GET"):
            stack.append(memo[argument])
        else:
            needed = [item for item in opcode.stack_before if item not in (_MARK, _SLICE)]
            start = (marks.pop() if _MARK in opcode.stack_before else len(stack)) - len(needed)
            depth = 1 + max(stack[start:], default=-1)
            if depth > _MAX_DEPTH:
                raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
            stack[start:] = [depth] * len(opcode.stack_after)


def tensor_fault(value: object, shape: tuple[int, ...]) -> str | None:
    """In words, what is wrong with a tensor of the archive that must be float32 or float16, finite, in memory and
    of this shape; None if nothing is. Its data is touched last."""
    if type(value) is not Tensor:
        return f"is no tensor but {type(value).__name__}"
    if value.layout is not torch.strided or value.device.type != "cpu" or value.dtype not in _DTYPES:
        return f"is {value.dtype}, {value.layout}, on {value.device}; expected float32 or float16 in memory"
    if value.shape != shape:
        return f"has shape {list(value.shape)}, expected {list(shape)}"
    is_dense = value.is_contiguous() or (value.dim() == 4 and value.is_contiguous(memory_format=torch.channels_last))
    if not is_dense or value.untyped_storage().nbytes() != value.nbytes:
        return "is a view of other numbers, expected a tensor of its own"
    return None if torch.isfinite(value).all() else "is not finite"


def is_plain(value: object, levels: int = 4) -> bool:
    """Whether it is a number, text, True, False, None, or a list, tuple or dictionary by text of such."""
    if isinstance(value, dict):
        return levels > 0 and all(type(key) is str and is_plain(item, levels - 1) for key, item in value.items())
    if isinstance(value, list | tuple):
        return levels > 0 and all(is_plain(item, levels - 1) for item in value)
    return value is None or type(value) in (bool, int, float, str)
