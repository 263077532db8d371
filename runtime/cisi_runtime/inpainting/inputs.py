"""What people have for a picture and its hole mask, as uint8 `[H, W, 3]` and bool `[H, W]`, and the result in kind.

Files and Pillow images are in `pillow_inputs.py`, which loads the readers and is imported when one comes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.contract import MASK_THRESHOLD
from cisi_runtime.inpainting.input_types import Complete

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

_CHANNELS = (1, 3, 4)
_IMAGES = "a NumPy array, a PIL image, a path, or a list of these"
_MASKS = "a NumPy array, a PIL image or a path, or a list of these for several pictures"
_SHAPES = "[H, W], [H, W, 1], [H, W, 3] or [H, W, 4], or a batch [N, H, W, 1, 3 or 4]"


def is_plain(image: Any, hole_mask: Any) -> bool:
    """Whether the two can go to the network as they are: uint8 `[H, W, 3]` and bool `[H, W]`."""
    return (
        isinstance(image, np.ndarray)
        and isinstance(hole_mask, np.ndarray)
        and image.dtype == np.uint8
        and hole_mask.dtype == np.bool_
        and image.ndim == 3
        and image.shape[2] == 3
        and 0 not in image.shape
        and hole_mask.shape == image.shape[:2]
    )


def complete_in_kind(image: Any, hole_mask: Any, complete: Complete) -> Any:
    """`complete` for a picture or several, of any kind that `Inpainter` takes. Returns the same kind.

    Raises TypeError for other kinds, ValueError for arrays and images that do not fit, PictureError for files.
    """
    if _is_list(image):
        masks = _masks_of(image, hole_mask)
        pairs = enumerate(zip(image, masks, strict=True))
        return [_complete_one(one, mask, complete, f"[{index}]") for index, (one, mask) in pairs]
    if isinstance(image, np.ndarray) and image.ndim == 4:
        _check_image(image, "image")
        result = np.empty_like(image)
        if not _is_several(hole_mask):
            hole_mask = hole_of(hole_mask, image.shape[1:3], "hole_mask")
        masks = _masks_of(image, hole_mask)
        for index, (one, mask) in enumerate(zip(image, masks, strict=True)):
            result[index] = _complete_array(one, hole_of(mask, one.shape[:2], f"hole_mask[{index}]"), complete)
        return result
    return _complete_one(image, hole_mask, complete, "")


def hole_of(mask: Any, size: tuple[int, int], name: str) -> BoolArray:
    """A hole mask of any kind, for a picture of `size` (height, width), as bool `[H, W]`. `name` is for messages.

    Of booleans, True is the hole; of integers from 0 to 255, 128 and above, or 1 where there are only 0 and 1; of
    floats in [0, 1], 0.5 and above. The integers' rule holds for files and PIL images too.
    """
    levels = mask
    if isinstance(mask, Image.Image | str | os.PathLike):
        from cisi_runtime.inpainting.pillow_inputs import levels_of

        levels = levels_of(mask, size, name)
    elif not isinstance(mask, np.ndarray):
        raise TypeError(f"{name}: expected {_MASKS}, got {_kind(mask)}")
    if levels.ndim == 3 and levels.shape[2] == 1:
        levels = levels[..., 0]
    if levels.ndim != 2:
        raise ValueError(f"{name}: expected [H, W] or [H, W, 1], got {levels.dtype} {levels.shape}")
    if levels.shape != size:
        turned = "; EXIF orientation is applied to paths alone" if levels.shape == size[::-1] else ""
        raise ValueError(
            f"{name}: the mask is {levels.shape[1]}x{levels.shape[0]} pixels, expected {size[1]}x{size[0]} as the "
            f"image{turned}"
        )
    return _threshold(levels, name)


def _threshold(levels: npt.NDArray[Any], name: str) -> BoolArray:
    hole_mask: BoolArray
    if levels.dtype == np.bool_:
        return levels
    if np.issubdtype(levels.dtype, np.integer):
        low, high = int(levels.min()), int(levels.max())
        if low < 0 or high > 255:
            raise ValueError(f"{name}: expected integers from 0 to 255, got {low} to {high}")
        if 1 < high < MASK_THRESHOLD:
            raise ValueError(f"{name}: its largest value is {high}, expected 128 and above, or 1, in the hole")
        hole_mask = levels >= (1 if high == 1 else MASK_THRESHOLD)
    elif np.issubdtype(levels.dtype, np.floating):
        _check_range(levels, name)
        hole_mask = levels >= 0.5
    else:
        raise ValueError(f"{name}: expected booleans, integers from 0 to 255 or floats in [0, 1], got {levels.dtype}")
    return hole_mask


def _complete_one(image: Any, hole_mask: Any, complete: Complete, index: str) -> Any:
    """index: of the picture in a list, for messages."""
    if isinstance(image, np.ndarray):
        _check_image(image, f"image{index}")
        if image.ndim == 4:
            raise ValueError(f"image{index}: expected a single picture in a list, got {image.dtype} {image.shape}")
        return _complete_array(image, hole_of(hole_mask, image.shape[:2], f"hole_mask{index}"), complete)
    if isinstance(image, Image.Image | str | os.PathLike):
        from cisi_runtime.inpainting.pillow_inputs import completed_image

        return completed_image(
            image, f"image{index}", lambda size: hole_of(hole_mask, size, f"hole_mask{index}"), complete
        )
    raise TypeError(f"image{index}: expected {_IMAGES}, got {_kind(image)}")


def _complete_array(image: npt.NDArray[Any], hole_mask: BoolArray, complete: Complete) -> npt.NDArray[Any]:
    """`[H, W]` or `[H, W, C]`, checked. Known pixels and alpha come from the array itself, so they cannot change."""
    levels: UInt8Array = image if image.dtype == np.uint8 else np.rint(image * image.dtype.type(255)).astype(np.uint8)
    is_grey = image.ndim == 2 or image.shape[2] == 1
    if is_grey:
        levels = np.repeat(levels.reshape(*image.shape[:2], 1), 3, axis=2)
    completed = complete(np.ascontiguousarray(levels[..., :3]), hole_mask)
    if image.dtype == np.uint8 and image.shape[2:] == (3,):
        return completed
    fill: npt.NDArray[Any]
    if is_grey:
        fill = np.asarray(Image.fromarray(completed).convert("L"))[hole_mask]
        fill = fill if image.ndim == 2 else fill[:, None]
    else:
        fill = completed[hole_mask]
    result = image.copy()
    colours = result[..., :3] if image.ndim == 3 else result
    colours[hole_mask] = fill if image.dtype == np.uint8 else fill.astype(image.dtype) / image.dtype.type(255)
    return result


def _check_image(image: npt.NDArray[Any], name: str) -> None:
    """Raise ValueError for an array that is neither a picture nor a batch of them."""
    got = f"got {image.dtype} {image.shape}"
    if image.dtype not in (np.uint8, np.float32, np.float64):
        raise ValueError(f"{name}: expected uint8 from 0 to 255, or float32 or float64 in [0, 1], {got}")
    if 0 in image.shape or image.ndim not in (2, 3, 4) or (image.ndim > 2 and image.shape[-1] not in _CHANNELS):
        axis = image.ndim - 3
        if image.ndim in (3, 4) and image.shape[axis] in _CHANNELS:
            raise ValueError(f"{name}: expected channels last, {got}: np.moveaxis(image, {axis}, -1)")
        grey = "; a batch of grey pictures is [N, H, W, 1]" if image.ndim == 3 and 0 not in image.shape else ""
        raise ValueError(f"{name}: expected {_SHAPES}, {got}{grey}")
    if image.dtype != np.uint8:
        _check_range(image, name)


def _check_range(values: npt.NDArray[Any], name: str) -> None:
    low, high = float(np.min(values)), float(np.max(values))
    if not (low >= 0 and high <= 1):
        with_nan = ", some NaN" if np.isnan(low) else ""
        low, high = (float(extreme.reduce(values, axis=None)) for extreme in (np.fmin, np.fmax))
        raise ValueError(f"{name}: expected floats in [0, 1], got {low:.9g} to {high:.9g}{with_nan}")


def _masks_of(images: Sequence[Any] | npt.NDArray[Any], hole_mask: Any) -> Sequence[Any]:
    """A mask for each picture of a list or a batch."""
    if not _is_several(hole_mask):
        return [hole_mask] * len(images)
    if len(hole_mask) != len(images):
        raise ValueError(f"hole_mask: {len(hole_mask)} masks, expected {len(images)} as there are pictures, or one")
    masks: Sequence[Any] = hole_mask
    return masks


def _is_several(hole_mask: Any) -> bool:
    """Whether it is a list or a batch of masks."""
    if isinstance(hole_mask, np.ndarray):
        return hole_mask.ndim == 4 or (hole_mask.ndim == 3 and hole_mask.shape[2] != 1)
    return _is_list(hole_mask)


def _is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray | memoryview)


def _kind(value: Any) -> str:
    """Of what was given instead, and for tensors what to do."""
    kind = type(value)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if kind.__module__.split(".")[0] == "torch":
        return f"{name}: tensor.cpu().numpy(), with channels last"
    return f"{name}: np.asarray(…), with channels last" if hasattr(value, "__array__") else name
