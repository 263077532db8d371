"""A window of a photograph on its way through the network and back."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.inpainting.blending import blend_seam
from cisi_runtime.inpainting.blocks import any_in_blocks, averaged
from cisi_runtime.inpainting.detail import DetailOutcome, add_detail
from cisi_runtime.inpainting.pull_push import extrapolate
from cisi_runtime.inpainting.smooth_surface import SmoothSurface, smooth_surface
from cisi_runtime.inpainting.windows import Window

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


class WindowView:
    """A window as the network sees it, and its fill in the photograph's own resolution.

    photograph: uint8 `[H, W, 3]`, with what earlier rounds have filled.
    remaining: bool `[H, W]`, what is still to be filled. hole_mask: bool `[H, W]`, the whole hole from the beginning.
    side: length of the network's pictures.

    Attributes: pixels, uint8 `[h, w, 3]`, at most `side` pixels long and without what lies under the hole; small_mask,
    bool `[h, w]`.
    """

    def __init__(
        self, photograph: UInt8Array, remaining: BoolArray, hole_mask: BoolArray, window: Window, side: int
    ) -> None:
        place = window.rows, window.columns
        self._window = window
        self._image, self._remaining, self._unknown = photograph[place], remaining[place], hole_mask[place]
        self._fill: UInt8Array | None = None
        self._surface: SmoothSurface | None = None
        height, width = window.shape
        self._scale = max(1.0, max(height, width) / side)
        if self._scale == 1.0:
            self.pixels = np.where(self._remaining[..., None], np.uint8(128), self._image)
            self.small_mask = self._remaining
        else:
            size = (max(1, round(width / self._scale)), max(1, round(height / self._scale)))
            # Average blocks first, down to twice the final size: the resize filter then needs less memory.
            block = max(1, int(self._scale / 2))
            image, mask = averaged(self._image, block), any_in_blocks(self._remaining, block)
            # So that what is under the hole does not leak into the known pixels beside it.
            self.pixels = _resized(extrapolate(image, mask), size)
            # A pixel that has any part of the hole in it is hole.
            cover = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
            self.small_mask = np.asarray(cover) > 0

    def finish(self, completed: UInt8Array) -> UInt8Array:
        """The network's result `[h, w, 3]`, or larger by padding: cropped, enlarged to the window's size, and blended
        into what is around the hole. Where that is smooth, its surface goes on instead."""
        height, width = self.small_mask.shape
        # At the network's size first: once enlarged, the edge mixes both sides and shows no difference.
        pixels = blend_seam(completed[:height, :width], self.pixels, self.small_mask)
        if self._scale > 1.0:
            pixels = _resized(pixels, (self._remaining.shape[1], self._remaining.shape[0]))
            pixels = blend_seam(pixels, self._image, self._remaining)
        self._surface = smooth_surface(self._image, pixels, self._remaining)
        if self._surface is not None:
            pixels = self._surface.over(pixels, self._image, self._remaining)
        return pixels

    def with_detail(self, fill: UInt8Array) -> tuple[UInt8Array, DetailOutcome]:
        """The fill `[H, W, 3]` of `finish` with detail from the window's known pixels, blended in once more. Where the
        surface goes on, it gets the grain of the detail."""
        target = np.zeros_like(self._remaining)
        target[self._part] = self._remaining[self._part]
        # Of what earlier rounds filled, their result is the guide.
        guide = np.where(self._remaining[..., None], fill, self._image)
        detailed, outcome = add_detail(self._image, guide, self._unknown, target)
        if outcome is not DetailOutcome.ADDED:
            return detailed, outcome
        blended = blend_seam(detailed, self._image, self._remaining)
        if self._surface is not None:
            blended = self._surface.over(blended, self._image, self._remaining, detailed)
        return blended, outcome

    def keep(self, fill: UInt8Array) -> None:
        """Take the window's part of a fill, for `paste`. The surface is not needed after that."""
        self._fill, self._surface = fill[self._part].copy(), None

    def paste(self) -> None:
        """Write what was kept into the photograph; it is no longer remaining then."""
        assert self._fill is not None
        hole = self._remaining[self._part]
        self._image[self._part][hole] = self._fill[hole]
        hole[...] = False

    @property
    def _part(self) -> tuple[slice, slice]:
        """The rows and columns of the window that it fills."""
        window = self._window
        top, left, bottom, right = window.fill
        return slice(top - window.top, bottom - window.top), slice(left - window.left, right - window.left)


def _resized(pixels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """To (width, height), with the contract's filter."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS))
