"""Annotations of what `Inpainter` takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

# The network on one picture: uint8 `[H, W, 3]` and bool `[H, W]` to uint8 `[H, W, 3]`, known pixels as they were.
Complete = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.bool_]], npt.NDArray[np.uint8]]

# What a picture may be beside a list: an array of these, or what gives a PIL image.
Level = TypeVar("Level", np.uint8, np.float32, np.float64)
ImageOrPath: TypeAlias = Image.Image | str | os.PathLike[str]
ImageOrPathT = TypeVar("ImageOrPathT", bound=ImageOrPath)
# What a hole mask may be, and what several.
HoleMask: TypeAlias = npt.NDArray[np.bool_ | np.integer[Any] | np.floating[Any]] | ImageOrPath
HoleMasks: TypeAlias = HoleMask | Sequence[HoleMask]
