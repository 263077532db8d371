"""Photographs of any size, inpainted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.backends.base import Backend, graph_inputs
from cisi_runtime.backends.opening import open_backend
from cisi_runtime.blocks import reduced
from cisi_runtime.extrapolation import extrapolate
from cisi_runtime.joining import join
from cisi_runtime.padding import pad, padded_size
from cisi_runtime.stages import Stages
from cisi_runtime.whole import as_pixels, check_arrays
from cisi_runtime.windows import Window, plan_windows

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# The graph and golden file that ship with the package.
SHIPPED_GRAPH = Path(__file__).parent / "weights" / "small.onnx"

# Pixels that the network was trained with, and works with here, where the graph takes any.
_SIDE = 256
# Windows at a time, where the graph takes any number.
_BATCH = 4


class Inpainter:
    """`Inpainter("best.onnx")(image, hole_mask)`: fills the holes of a photograph and touches nothing else.

    model: a graph, an engine, a checkpoint, or a backend that is open; default: the graph that ships. backend:
    "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt", "torch"; "auto" chooses by the file. `chosen` says what
    runs and why. Calls from several threads are safe. Raises what the backends raise.

    Around each hole a window twice its length is looked at, so that the cost follows the holes. One of up to 256 pixels
    goes to the network as it is, a larger one at 256 pixels, and the fill is enlarged; of a scratch or a wire one piece
    follows the other.
    """

    def __init__(self, model: Path | str | Backend = SHIPPED_GRAPH, backend: str = "auto", *, threads: int = 0) -> None:
        if isinstance(model, Backend):
            self.backend, self.chosen = model, f"{model.name}: it was given"
        else:
            self.backend, self.chosen = open_backend(Path(model), backend, threads=threads)
        self._least, (most_pictures, *most_sides) = self.backend.fixed.limits()
        self._side = min(_SIDE, *most_sides) if self.backend.fixed.height is None else min(most_sides)
        self._batch = most_pictures if self.backend.fixed.batch else min(_BATCH, most_pictures)

    def __call__(self, image: UInt8Array, hole_mask: BoolArray, stages: Stages | None = None) -> UInt8Array:
        """image uint8 `[H, W, 3]` RGB, hole_mask bool `[H, W]`, True = hole; any size. Returns the completed picture,
        uint8 `[H, W, 3]`; every known pixel is as it was, and what lies under the hole has no influence. A mask without
        a hole returns a copy of the picture. stages: gets the time of each stage. Raises ValueError for other
        arrays."""
        check_arrays(image, hole_mask)
        stages = Stages() if stages is None else stages
        with stages("prepare"):
            completed, rest = image.copy(), hole_mask.copy()
            windows = plan_windows(hole_mask, self._side)
        for _, together in itertools.groupby(windows, key=lambda window: window.round):
            # The pieces of a round do not see each other's results, in whatever order and batches they come.
            results = self._fills(completed, rest, list(together), stages)
            with stages("finish"):
                for window, fill in results:
                    top, left, bottom, right = window.fill
                    here = rest[top:bottom, left:right]
                    inside = fill[top - window.top : bottom - window.top, left - window.left : right - window.left]
                    completed[top:bottom, left:right][here] = inside[here]
                    here[...] = False
        return completed

    def warmup(self, sizes: Iterable[tuple[int, int]]) -> None:
        """Run once for photographs of these heights and widths, so that the first is as quick as the others."""
        for height, width in sizes:
            hole_mask = np.zeros((height, width), dtype=np.bool_)
            hole_mask[height // 2, width // 2] = True
            self(np.zeros((height, width, 3), dtype=np.uint8), hole_mask)

    def _fills(
        self, image: UInt8Array, hole_mask: BoolArray, windows: Sequence[Window], stages: Stages
    ) -> list[tuple[Window, UInt8Array]]:
        """Each window with its pixels, uint8 `[h, w, 3]`, good inside the hole."""
        fills: list[tuple[Window, UInt8Array]] = []
        with stages("prepare"):
            prepared = [_Prepared(image[w.rows, w.columns], hole_mask[w.rows, w.columns], self._side) for w in windows]
            padded = [self._padded(one) for one in prepared]
        order = sorted(range(len(windows)), key=lambda index: padded[index][1].shape)
        for _, group in itertools.groupby(order, key=lambda index: padded[index][1].shape):
            members = list(group)
            for start in range(0, len(members), self._batch):
                chunk = members[start : start + self._batch]
                # Where a graph takes no fewer pictures it gets the last one several times.
                filled_up = chunk + [chunk[-1]] * (self._least[0] - len(chunk))
                with stages("prepare"):
                    images = np.stack([padded[index][0] for index in filled_up])
                    masks = np.stack([padded[index][1] for index in filled_up])
                results = run_in_stages(self.backend, images, masks, stages)
                with stages("finish"):
                    fills += [
                        (windows[i], prepared[i].finish(pixels)) for i, pixels in zip(chunk, results, strict=False)
                    ]
        return fills

    def _padded(self, one: _Prepared) -> tuple[UInt8Array, BoolArray]:
        height, width = one.hole_mask.shape
        next_up = padded_size(height, width, self.backend.contract)
        to = (max(next_up[0], self._least[1]), max(next_up[1], self._least[2]))
        return pad(one.pixels, one.hole_mask, self.backend.contract, to)


def run_in_stages(backend: Backend, images: UInt8Array, masks: BoolArray, stages: Stages) -> UInt8Array:
    """A batch uint8 `[N, H, W, 3]`, bool `[N, H, W]` through a backend, to uint8 `[N, H, W, 3]`."""
    with stages("copy in"):
        inputs = graph_inputs(backend.contract, images, masks)
    with stages("run"):
        results = backend.run(*(inputs[name] for name in backend.contract.inputs))
    with stages("copy out"):
        return as_pixels(results)


class _Prepared:
    """A window on its way to the network: at most `side` pixels long, nothing left of what is under the hole."""

    def __init__(self, image: UInt8Array, hole_mask: BoolArray, side: int) -> None:
        self._image, self._hole_mask = image, hole_mask
        height, width = hole_mask.shape
        self._scale = max(1.0, max(height, width) / side)
        if self._scale == 1.0:
            self.pixels, self.hole_mask = np.where(hole_mask[..., None], np.uint8(128), image), hole_mask
        else:
            size = (max(1, round(width / self._scale)), max(1, round(height / self._scale)))
            # Averages of blocks first, where that leaves the filter twice what is wanted: it takes less memory.
            image, hole_mask = reduced(image, hole_mask, int(self._scale / 2))
            # So that what is under the hole does not get into the known pixels beside it.
            self.pixels = _resized(extrapolate(image, hole_mask), size)
            # A pixel that has any part of the hole in it is hole.
            cover = Image.fromarray(hole_mask.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
            self.hole_mask = np.asarray(cover) > 0

    def finish(self, completed: UInt8Array) -> UInt8Array:
        """The network's result, cropped, enlarged, and joined to what is around the hole."""
        height, width = self.hole_mask.shape
        # At the network's size first: enlarged, its edge is a mixture of both sides and shows no difference.
        pixels = join(completed[:height, :width], self.pixels, self.hole_mask)
        if self._scale > 1.0:
            pixels = _resized(pixels, (self._hole_mask.shape[1], self._hole_mask.shape[0]))
            pixels = join(pixels, self._image, self._hole_mask)
        return pixels


def _resized(pixels: UInt8Array, size: tuple[int, int]) -> UInt8Array:
    """To (width, height), by the contract's filter."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.LANCZOS))
