"""Photographs of any size, inpainted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from cisi_runtime.backends.base import Backend
from cisi_runtime.backends.registry import BackendOptions
from cisi_runtime.errors import GraphError, error_prefix
from cisi_runtime.inpainting.detail import DetailOutcome
from cisi_runtime.inpainting.input_types import HoleMask, HoleMasks, ImageOrPath, ImageOrPathT, Level
from cisi_runtime.inpainting.inputs import complete_in_kind, is_plain
from cisi_runtime.inpainting.model import OpenedModel, open_model
from cisi_runtime.inpainting.model_hub import find_graph
from cisi_runtime.inpainting.padding import pad, padded_size
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.inpainting.window_view import WindowView
from cisi_runtime.inpainting.windows import plan_windows

UInt8Array = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]

# Side of the network's pictures in training. Windows have it too, where the graph takes any size.
_SIDE = 256
# Windows in a batch, where the graph takes any number.
_BATCH = 4


class Inpainter:
    """`Inpainter("best.onnx")(image, hole_mask)` fills the holes of a photograph and changes nothing else.

    Takes NumPy arrays, PIL images and paths, one or several, and returns the same kind (see `__call__`).

    The cost follows the holes, not the photograph: around each hole it looks at a window of twice the hole's length. A
    window of up to 256 pixels goes to the network as it is. A larger one is reduced to 256 pixels and its fill is
    enlarged. Scratches and wires are filled piece by piece. The network's fill is smooth; `detail` gives it the texture
    of what is around the hole, in the photograph's own resolution. Where it is smooth around the hole, as in a sky, the
    surface of that goes on instead of the network's fill (see `cisi_runtime.inpainting.smooth_surface`).

    model: a graph, an engine, a checkpoint, or an open backend. None: what ships (see `open_model`).
    backend: "onnxruntime", "openvino", "tensorrt" or "torch"; "auto" chooses by the file.
    device: "cpu" or "cuda"; "auto" is the GPU for an engine and the CPU for all others.
    threads: of backends on the CPU, 0 for all cores.
    precision: "stored", or "bf16" for bfloat16 in OpenVINO or PyTorch, where the processor has it.
    detail: whether the fill gets texture (see `cisi_runtime.inpainting.detail`). False gives the network's fill,
    blended, and smooth surfaces without grain.

    `model` is the file that runs, None for an open backend. `backend_reason` says what runs and why, `warning` why an
    INT8 graph could not be checked on this CPU. Calls from several threads are safe. As a context manager it closes the
    backend at the end, unless it was given an open one. Raises what the backends raise, and CpuError for an INT8 graph
    that this CPU computes wrongly.
    """

    def __init__(
        self,
        model: Path | str | Backend | None = None,
        backend: str = "auto",
        *,
        device: str = "auto",
        threads: int = 0,
        precision: str = "stored",
        detail: bool = True,
    ) -> None:
        self.detail = detail
        self._options = f"threads={threads}, " if not isinstance(model, Backend) else ""
        self._options += f"device={device!r}, " if device != "auto" else ""
        self._options += f"precision={precision!r}, " if precision != "stored" else ""
        self._owns_backend = not isinstance(model, Backend)
        if isinstance(model, Backend):
            opened = OpenedModel(None, model, f"{model.name}: passed in by the caller")
        else:
            path = None if model is None else Path(model)
            opened = open_model(path, BackendOptions(backend, device, precision, threads))
        self.model, self.backend = opened.path, opened.backend
        self.backend_reason, self.warning = opened.reason, opened.warning
        self._min_size, (max_batch, *max_sides) = self.backend.fixed.limits()
        min_batch, *min_sides = self._min_size
        # An engine may take large windows and batches alone: smaller ones would be padded.
        usual = max(_SIDE, *min_sides)
        self._side = min(usual, *max_sides) if self.backend.fixed.height is None else min(max_sides)
        self._batch = max_batch if self.backend.fixed.batch else min(max(_BATCH, min_batch), max_batch)

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        *,
        file: str | None = None,
        revision: str | None = None,
        backend: str = "auto",
        device: str = "auto",
        threads: int = 0,
        precision: str = "stored",
        detail: bool = True,
    ) -> Self:
        """Open the graph of a model repository on the Hugging Face Hub, or of a folder.

        `Inpainter.from_pretrained("owner/name", file="small.int8.cpu.onnx")`

        name: `owner/name`, or a folder, which goes before a repository of the same name.
        file: the graph (`.onnx`) in it. None: the only one at its top. Where there are several it must be named: they
        differ in precision.
        revision: branch, tag or commit of a repository; None for its main branch. A commit never changes.

        The other options are those of `Inpainter`. Needs the extra `hub`, unless `name` is a folder. The graph and its
        golden file are fetched once, into the cache of `huggingface_hub`; a checkpoint or an engine never is. Where the
        Hub cannot be reached, what is cached for the revision is used. Raises HubError where this does not lead to one
        graph, and what `Inpainter` raises.
        """
        graph = find_graph(name, file, revision)
        with error_prefix(str(name)):
            return cls(graph, backend, device=device, threads=threads, precision=precision, detail=detail)

    @overload
    def __call__(
        self, image: npt.NDArray[Level], hole_mask: HoleMasks, timer: StageTimer | None = None
    ) -> npt.NDArray[Level]: ...

    @overload
    def __call__(self, image: ImageOrPath, hole_mask: HoleMask, timer: StageTimer | None = None) -> Image.Image: ...

    @overload
    def __call__(
        self,
        image: list[npt.NDArray[Level]] | tuple[npt.NDArray[Level], ...],
        hole_mask: HoleMasks,
        timer: StageTimer | None = None,
    ) -> list[npt.NDArray[Level]]: ...

    @overload
    def __call__(
        self,
        image: list[ImageOrPathT] | tuple[ImageOrPathT, ...],
        hole_mask: HoleMasks,
        timer: StageTimer | None = None,
    ) -> list[Image.Image]: ...

    def __call__(self, image: Any, hole_mask: Any, timer: StageTimer | None = None) -> Any:
        """Every known pixel stays as it was, and so does alpha. What lies under the hole has no influence. A mask
        without a hole gives a copy of the picture.

        image: one of these, of any size; the result is of the same kind.

        - uint8 `[H, W, 3]` RGB; `[H, W, 4]` with alpha; `[H, W]` or `[H, W, 1]` grey.
        - float32 or float64 in [0, 1], of the same shapes. The fill is in steps of 1/255.
        - A PIL image of mode L, LA, RGB or RGBA. 1 becomes L, P and PA become RGB or RGBA, and a transparent colour
          becomes alpha. It is taken as it is: an EXIF orientation is not applied.
        - A path, str or Path: what `cisi-run` reads. Gives a PIL image, upright.
        - A batch `[N, H, W, C]`, or a list or tuple of the above, which gives a list. They are done one by one.

        hole_mask: of the picture's size, whatever kind the picture is.

        - bool `[H, W]` or `[H, W, 1]`, True = hole.
        - Integers from 0 to 255: 128 and above is the hole; where there are only 0 and 1, 1 is.
        - Floats in [0, 1]: 0.5 and above is the hole.
        - A PIL image of the above modes without colours, or a path: as integers.
        - For several pictures a list, a batch `[N, H, W]`, or one mask for all.

        timer: gets the time of each stage, and a note where a hole got no detail.

        Raises TypeError for other kinds, ValueError for other arrays and images, PictureError for files that cannot be
        used, and GraphError once it is closed. Without enough memory it raises GraphError, from within the network, or
        MemoryError; later calls are not affected.
        """
        if self.backend.is_closed:
            raise GraphError(f"{self!r}: expected one that is open")
        timer = StageTimer() if timer is None else timer
        if is_plain(image, hole_mask):
            return self._complete(image, hole_mask, timer)
        return complete_in_kind(image, hole_mask, lambda image, hole_mask: self._complete(image, hole_mask, timer))

    def _complete(self, image: UInt8Array, hole_mask: BoolArray, timer: StageTimer) -> UInt8Array:
        """image: uint8 `[H, W, 3]`. hole_mask: bool `[H, W]`. Returns uint8 `[H, W, 3]`."""
        with timer("prepare"):
            completed, remaining = image.copy(), hole_mask.copy()
            windows = plan_windows(hole_mask, self._side)
        outcomes: Counter[DetailOutcome] = Counter()
        for _, members in itertools.groupby(windows, key=lambda window: window.round):
            # The windows of a round do not see each other's results, so their order and batches do not matter.
            with timer("prepare"):
                views = [WindowView(completed, remaining, hole_mask, window, self._side) for window in members]
            for view, result in self._through_network(views, timer):
                with timer("finish"):
                    fill = view.finish(result)
                if self.detail:
                    with timer("detail"):
                        fill, outcome = view.with_detail(fill)
                    outcomes[outcome] += 1
                view.keep(fill)
            with timer("finish"):
                for view in views:
                    view.paste()
        for outcome in outcomes:
            if outcome is not DetailOutcome.ADDED:
                timer.notes.append(f"no detail in {outcomes[outcome]} of {len(windows)} windows: {outcome.value}")
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

    def __repr__(self) -> str:
        name = repr(self.model.name) if self.model is not None else "…"
        text = f"Inpainter({name}, backend={self.backend.name!r}, {self._options}detail={self.detail})"
        return f"<closed {text}>" if self.backend.is_closed else text

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _through_network(
        self, views: Sequence[WindowView], timer: StageTimer
    ) -> Iterator[tuple[WindowView, UInt8Array]]:
        """Each window with the network's result, uint8 `[h, w, 3]`, padded."""
        with timer("prepare"):
            padded = [self._padded(view) for view in views]
        order = sorted(range(len(views)), key=lambda index: padded[index][1].shape)
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
                yield from ((views[index], result) for index, result in zip(chunk, results, strict=False))

    def _padded(self, view: WindowView) -> tuple[UInt8Array, BoolArray]:
        height, width = view.small_mask.shape
        next_up = padded_size(height, width, self.backend.contract)
        size = (max(next_up[0], self._min_size[1]), max(next_up[1], self._min_size[2]))
        return pad(view.pixels, view.small_mask, self.backend.contract, size)


def run_in_stages(backend: Backend, images: UInt8Array, masks: BoolArray, timer: StageTimer) -> UInt8Array:
    """A batch uint8 `[N, H, W, 3]`, bool `[N, H, W]` through a backend, to uint8 `[N, H, W, 3]`."""
    with timer("copy in"):
        inputs = backend.contract.io.inputs(images, masks)
    with timer("run"):
        note = backend.prepare(images.shape[:3])
        completed = backend.run(*inputs.values())
    if note is not None:
        timer.notes.append(note)
    with timer("copy out"):
        return backend.contract.io.pixels(completed)
