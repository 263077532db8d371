"""Photographs of any size, inpainted."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from cisi_runtime.backends.base import Backend
from cisi_runtime.inpainting.detail import DetailOutcome
from cisi_runtime.inpainting.model import OpenedModel, open_model
from cisi_runtime.inpainting.padding import pad, padded_size
from cisi_runtime.inpainting.single_pass import check_arrays
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

    The cost follows the holes, not the photograph: around each hole it looks at a window of twice the hole's length. A
    window of up to 256 pixels goes to the network as it is. A larger one is reduced to 256 pixels and its fill is
    enlarged. Scratches and wires are filled piece by piece. The network's fill is smooth; `detail` gives it the texture
    of what is around the hole, in the photograph's own resolution.

    model: a graph, an engine, a checkpoint, or an open backend. None: what ships (see `open_model`).
    backend: "onnxruntime", "onnxruntime-cuda", "openvino", "tensorrt" or "torch"; "auto" chooses by the file.
    threads: of backends on the CPU, 0 for all cores.
    precision: "stored", or "bf16" for bfloat16 in OpenVINO or PyTorch, on a CPU that has it.
    detail: whether the fill gets texture (see `cisi_runtime.inpainting.detail`). Parity speaks of the network alone,
    which is what False gives.

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
        threads: int = 0,
        precision: str = "stored",
        detail: bool = True,
    ) -> None:
        self.detail = detail
        self._owns_backend = not isinstance(model, Backend)
        if isinstance(model, Backend):
            opened = OpenedModel(None, model, f"{model.name}: passed in by the caller")
        else:
            path = None if model is None else Path(model)
            opened = open_model(path, backend, threads=threads, precision=precision)
        self.model, self.backend = opened.path, opened.backend
        self.backend_reason, self.warning = opened.reason, opened.warning
        self._min_size, (max_batch, *max_sides) = self.backend.fixed.limits()
        self._side = min(_SIDE, *max_sides) if self.backend.fixed.height is None else min(max_sides)
        self._batch = max_batch if self.backend.fixed.batch else min(_BATCH, max_batch)

    def __call__(self, image: UInt8Array, hole_mask: BoolArray, timer: StageTimer | None = None) -> UInt8Array:
        """image: uint8 `[H, W, 3]` RGB, any size. hole_mask: bool `[H, W]`, True = hole. Returns uint8 `[H, W, 3]`.

        Every known pixel stays as it was, and what lies under the hole has no influence. A mask without a hole gives a
        copy of the picture. timer: gets the time of each stage, and a note where a hole got no detail. Raises
        ValueError for other arrays.
        """
        check_arrays(image, hole_mask)
        timer = StageTimer() if timer is None else timer
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
