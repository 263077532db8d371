"""Photographs of any size, inpainted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import SHIPPED_GRAPH, open_backend
from cisi_runtime.inpainting.blending import blend_seam
from cisi_runtime.inpainting.blocks import reduced
from cisi_runtime.inpainting.padding import pad, padded_size
from cisi_runtime.inpainting.pull_push import extrapolate
from cisi_runtime.inpainting.single_pass import check_arrays
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.inpainting.windows import Window, plan_windows

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# Side of the network's pictures in training. Windows have it too, where the graph takes any size.
_SIDE = 256
# Windows in a batch, where the graph takes any number.
_BATCH = 4


class Inpainter:
    """`Inpainter("best.onnx")(image, hole_mask)` fills the holes of a photograph and changes nothing else.

    The cost follows the holes, not the photograph: around each hole it looks at a window of twice the hole's length. A
    window of up to 256 pixels goes to the network as it is. A larger one is reduced to 256 pixels and its fill is
    enlarged. Scratches and wires are filled piece by piece.

    model: a graph, an engine, a checkpoint, or an open backend. Default: the graph that ships.
    backend: "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt" or "torch"; "auto" chooses by the file.
    threads: of backends on the CPU, 0 for all cores.

    `backend_reason` says what runs and why. Calls from several threads are safe. As a context manager it closes the
    backend at the end, unless it was given an open one. Raises what the backends raise.
    """

    def __init__(self, model: Path | str | Backend = SHIPPED_GRAPH, backend: str = "auto", *, threads: int = 0) -> None:
        self._owns_backend = not isinstance(model, Backend)
        if isinstance(model, Backend):
            self.backend, self.backend_reason = model, f"{model.name}: passed in by the caller"
        else:
            self.backend, self.backend_reason = open_backend(Path(model), backend, threads=threads)
        self._min_size, (max_batch, *max_sides) = self.backend.fixed.limits()
        self._side = min(_SIDE, *max_sides) if self.backend.fixed.height is None else min(max_sides)
        self._batch = max_batch if self.backend.fixed.batch else min(_BATCH, max_batch)

    def __call__(self, image: UInt8Array, hole_mask: BoolArray, timer: StageTimer | None = None) -> UInt8Array:
        """image: uint8 `[H, W, 3]` RGB, any size. hole_mask: bool `[H, W]`, True = hole. Returns uint8 `[H, W, 3]`.

        Every known pixel stays as it was, and what lies under the hole has no influence. A mask without a hole gives a
        copy of the picture. timer: gets the time of each stage. Raises ValueError for other arrays.
        """
        check_arrays(image, hole_mask)
        timer = StageTimer() if timer is None else timer
        with timer("prepare"):
            completed, remaining = image.copy(), hole_mask.copy()
            windows = plan_windows(hole_mask, self._side)
        for _, members in itertools.groupby(windows, key=lambda window: window.round):
            # The windows of a round do not see each other's results, so their order and batches do not matter.
            results = self._fills(completed, remaining, list(members), timer)
            with timer("finish"):
                for window, fill in results:
                    top, left, bottom, right = window.fill
                    hole = remaining[top:bottom, left:right]
                    inside = fill[top - window.top : bottom - window.top, left - window.left : right - window.left]
                    completed[top:bottom, left:right][hole] = inside[hole]
                    hole[...] = False
        return completed

    def warmup(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Run once for photographs of these heights and widths, so that the first one is as quick as the rest."""
        for height, width in sizes:
            hole_mask = np.zeros((height, width), dtype=np.bool_)
            hole_mask[height // 2, width // 2] = True
            self(np.zeros((height, width, 3), dtype=np.uint8), hole_mask)

    def close(self) -> None:
        """Close the backend, unless the caller passed it in."""
        if self._owns_backend:
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fills(
        self, image: UInt8Array, hole_mask: BoolArray, windows: Sequence[Window], timer: StageTimer
    ) -> list[tuple[Window, UInt8Array]]:
        """Each window with its pixels, uint8 `[h, w, 3]`, valid inside the hole."""
        fills: list[tuple[Window, UInt8Array]] = []
        with timer("prepare"):
            views = [_WindowView(image[w.rows, w.columns], hole_mask[w.rows, w.columns], self._side) for w in windows]
            padded = [self._padded(view) for view in views]
        order = sorted(range(len(windows)), key=lambda index: padded[index][1].shape)
        for _, group in itertools.groupby(order, key=lambda index: padded[index][1].shape):
            members = list(group)
            for start in range(0, len(members), self._batch):
                chunk = members[start : start + self._batch]
                # A graph with a fixed batch gets the last window several times.
                filled_up = chunk + [chunk[-1]] * (self._min_size[0] - len(chunk))
                with timer("prepare"):
                    images = np.stack([padded[index][0] for index in filled_up])
                    masks = np.stack([padded[index][1] for index in filled_up])
                results = run_in_stages(self.backend, images, masks, timer)
                with timer("finish"):
                    fills += [(windows[i], views[i].finish(pixels)) for i, pixels in zip(chunk, results, strict=False)]
        return fills

    def _padded(self, view: _WindowView) -> tuple[UInt8Array, BoolArray]:
        height, width = view.hole_mask.shape
        next_up = padded_size(height, width, self.backend.contract)
        size = (max(next_up[0], self._min_size[1]), max(next_up[1], self._min_size[2]))
        return pad(view.pixels, view.hole_mask, self.backend.contract, size)


def run_in_stages(backend: Backend, images: UInt8Array, masks: BoolArray, timer: StageTimer) -> UInt8Array:
    """A batch uint8 `[N, H, W, 3]`, bool `[N, H, W]` through a backend, to uint8 `[N, H, W, 3]`."""
    with timer("copy in"):
        inputs = backend.contract.io.inputs(images, masks)
    with timer("run"):
        completed = backend.run(*inputs.values())
    with timer("copy out"):
        return backend.contract.io.pixels(completed)


class _WindowView:
    """A window as the network sees it: at most `side` pixels long, with the content under the hole removed."""

    def __init__(self, image: UInt8Array, hole_mask: BoolArray, side: int) -> None:
        self._image, self._hole_mask = image, hole_mask
        height, width = hole_mask.shape
        self._scale = max(1.0, max(height, width) / side)
        if self._scale == 1.0:
            self.pixels, self.hole_mask = np.where(hole_mask[..., None], np.uint8(128), image), hole_mask
        else:
            size = (max(1, round(width / self._scale)), max(1, round(height / self._scale)))
            # Average blocks first, down to twice the final size: the resize filter then needs less memory.
            image, hole_mask = reduced(image, hole_mask, int(self._scale / 2))
            # So that what is under the hole does not leak into the known pixels beside it.
            self.pixels = _resized(extrapolate(image, hole_mask), size)
            # A pixel that has any part of the hole in it is hole.
            cover = Image.fromarray(hole_mask.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
            self.hole_mask = np.asarray(cover) > 0

    def finish(self, completed: UInt8Array) -> UInt8Array:
        """The network's result, cropped, enlarged, and blended into what is around the hole."""
        height, width = self.hole_mask.shape
        # At the network's size first: once enlarged, the edge mixes both sides and shows no difference.
        pixels = blend_seam(completed[:height, :width], self.pixels, self.hole_mask)
        if self._scale > 1.0:
            pixels = _resized(pixels, (self._hole_mask.shape[1], self._hole_mask.shape[0]))
            pixels = blend_seam(pixels, self._image, self._hole_mask)
        return pixels


def _resized(pixels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """To (width, height), with the contract's filter."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS))
