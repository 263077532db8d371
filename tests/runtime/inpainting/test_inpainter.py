"""Photographs of any size: what stays, what is filled, and how it meets the rest."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cisi_runtime import Inpainter
from cisi_runtime.architecture import PRESETS
from cisi_runtime.backends.base import Backend, FixedShape
from cisi_runtime.backends.tensorrt import EngineShape
from cisi_runtime.contract import Contract
from cisi_runtime.engines.options import Profile, Size
from cisi_runtime.errors import GraphError
from cisi_runtime.inpainting.blending import blend_seam
from cisi_runtime.inpainting.pull_push import extrapolate, pull_push
from cisi_runtime.inpainting.single_pass import SinglePassInpainter
from cisi_runtime.inpainting.windows import plan_windows
from tests.support.networks import provenance


class Painter(Backend):
    """Fills holes with one colour and remembers what it was given; known pixels go through."""

    def __init__(self, fixed: FixedShape | None = None, colour: int = 200) -> None:
        contract = Contract(PRESETS["tiny"], provenance(), target="cpu", face="uint8")
        super().__init__("painter", contract, fixed or FixedShape())
        self.colour = colour
        self.seen: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]] = []

    def _run(self, image: npt.NDArray[Any], hole_mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        self.seen.append((image, hole_mask))
        return np.where((hole_mask >= 128)[..., None], np.uint8(self.colour), image)

    def _close(self) -> None:
        self.seen.clear()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    seed=st.integers(0, 2**32 - 1),
    part=st.sampled_from([0.0, 0.001, 0.3, 1.0]),
)
def test_known_pixels_stay_and_nothing_under_the_hole_matters(height: int, width: int, seed: int, part: float) -> None:
    rng = np.random.default_rng(seed)
    image, other = (rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(2))
    hole = rng.random((height, width)) < part
    inpaint = Inpainter(Painter())
    completed = inpaint(image, hole)
    assert (completed.shape, completed.dtype) == (image.shape, np.uint8)
    assert np.array_equal(completed[~hole], image[~hole])
    assert np.array_equal(inpaint(np.where(hole[..., None], other, image), hole), completed)


def test_the_network_sees_small_holes_as_they_are_and_large_ones_smaller() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1200, 1600, 3), dtype=np.uint8)
    hole = np.zeros((1200, 1600), dtype=np.bool_)
    hole[300:340, 400:440] = True
    painter = Painter()
    Inpainter(painter)(image, hole)
    (pixels, mask), *rest = painter.seen
    assert not rest
    assert pixels.shape == (1, 256, 256, 3)
    assert (mask >= 128).sum() == 40 * 40
    known = mask[0] < 128
    assert np.array_equal(pixels[0][known], image[192:448, 296:552][known])
    painter.seen.clear()
    hole[500:1100, 600:1200] = True
    Inpainter(painter)(image, hole)
    # Windows of the same size go together.
    ((pixels, mask),) = painter.seen
    assert pixels.shape == (2, 256, 256, 3)


def test_windows_go_in_batches() -> None:
    image, hole = np.zeros((600, 3000, 3), dtype=np.uint8), np.zeros((600, 3000), dtype=np.bool_)
    hole[300:320, 300::400] = True
    painter = Painter()
    Inpainter(painter)(image, hole)
    assert [len(pixels) for pixels, _ in painter.seen] == [4, 3]
    fixed = Painter(FixedShape(batch=2))
    Inpainter(fixed)(image, hole)
    assert [len(pixels) for pixels, _ in fixed.seen] == [2, 2, 2, 2]


@pytest.mark.parametrize("size", [(128, 192), (512, 512), (64, 64)])
def test_a_graph_of_one_size_takes_every_picture(size: tuple[int, int]) -> None:
    image = np.full((700, 900, 3), 90, dtype=np.uint8)
    hole = np.zeros((700, 900), dtype=np.bool_)
    hole[100:400, 500:800] = True
    painter = Painter(FixedShape(1, *size))
    completed = Inpainter(painter)(image, hole)
    assert {pixels.shape[1:3] for pixels, _ in painter.seen} == {size}
    assert np.array_equal(completed[~hole], image[~hole])


def test_an_engine_that_takes_large_windows_alone_is_given_them() -> None:
    """And no smaller ones that are mirrored to that size, with the hole in them four times."""
    image, hole = np.zeros((1200, 3000, 3), dtype=np.uint8), np.zeros((1200, 3000), dtype=np.bool_)
    hole[300:320, 300::500] = True
    only = Size(8, 512, 512)
    painter = Painter(EngineShape(profile=Profile(only, only, only)))
    Inpainter(painter)(image, hole)
    ((pixels, masks),) = painter.seen
    assert pixels.shape == (8, 512, 512, 3)
    # Six windows; the last is repeated.
    assert [(mask >= 128).sum() for mask in masks] == [20] * 8


def test_pieces_of_a_wire_follow_each_other() -> None:
    """A later piece takes what an earlier one filled as known."""
    image, hole = np.full((600, 1000, 3), 90, dtype=np.uint8), np.zeros((600, 1000), dtype=np.bool_)
    hole[300:304, 100:900] = True
    painter = Painter()
    Inpainter(painter)(image, hole)
    holes = [int((mask >= 128).sum()) for _, mask in painter.seen]
    assert len(holes) > 3
    assert sum(holes) < 4 * 256 * len(holes)


def test_the_fill_meets_what_is_around_it() -> None:
    """A flat fill of another colour takes the colour of a flat surrounding; a slope is continued."""
    flat, hole = np.full((120, 120, 3), 90, dtype=np.uint8), np.zeros((120, 120), dtype=np.bool_)
    hole[30:90, 30:90] = True
    assert np.array_equal(Inpainter(Painter())(flat, hole), flat)
    slope = np.broadcast_to(np.arange(120, dtype=np.uint8)[:, None, None] + 60, (120, 120, 3)).copy()
    completed = Inpainter(Painter())(slope, hole)
    assert np.abs(completed.astype(int) - slope).max() <= 12
    large = np.full((900, 900, 3), (10, 120, 240), dtype=np.uint8)
    wide = np.zeros((900, 900), dtype=np.bool_)
    wide[200:700, 200:700] = True
    assert np.abs(Inpainter(Painter())(large, wide).astype(int) - large).max() <= 1
    huge = np.full((2500, 2300, 3), (10, 120, 240), dtype=np.uint8)
    most = np.zeros((2500, 2300), dtype=np.bool_)
    most[99:2401, 77:2250] = True  # in blocks of 2 by 2, with ends that fit none
    assert np.abs(Inpainter(Painter())(huge, most).astype(int) - huge).max() <= 1


def test_many_small_holes_are_planned_at_once() -> None:
    """Eleven thousand dots: each is filled once, in few windows."""
    rng, hole = np.random.default_rng(0), np.zeros((3000, 4000), dtype=np.bool_)
    for top, left in zip(rng.integers(0, 2997, 11_000), rng.integers(0, 3997, 11_000), strict=True):
        hole[top : top + 3, left : left + 3] = True
    windows = plan_windows(hole, 256)
    assert len(windows) < 1500
    covered = np.zeros_like(hole)
    for window in windows:
        top, left, bottom, right = window.fill
        covered[top:bottom, left:right] = True
    assert covered[hole].all()


def test_all_hole() -> None:
    image, hole = np.full((300, 500, 3), 90, dtype=np.uint8), np.ones((300, 500), dtype=np.bool_)
    assert (Inpainter(Painter())(image, hole) == 200).all()


def test_continuation_by_hand() -> None:
    image = np.zeros((1, 4, 3), dtype=np.uint8)
    image[0, 0] = 100
    known = np.array([[True, False, False, False]])
    assert np.allclose(extrapolate(image, ~known), 100.0)
    assert np.allclose(
        pull_push(np.ones((2, 3, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.bool_), default=7.0), 7.0
    )
    both = np.array([[True, False, False, True]])
    image[0, 3] = 200
    row = extrapolate(image, ~both)[0, :, 0]
    assert row[0] == 100.0
    assert row[3] == 200.0
    assert 100.0 <= row[1] <= row[2] <= 200.0


def test_blending_by_hand() -> None:
    hole = np.zeros((5, 6), dtype=np.bool_)
    hole[2, 2:4] = True
    picture = np.full((5, 6, 3), 100, dtype=np.uint8)
    picture[:, 3:] = 140
    picture[2, 2:4] = 255  # under the hole: no influence
    fill = np.where(hole[..., None], np.uint8(50), picture)
    fill[2, 3] = 80
    # Seven known neighbours each: 5 of 100 and 2 of 140, and the other way round.
    blended = blend_seam(fill, picture, hole)
    assert np.array_equal(blended[2, 2:4, 0], [round((5 * 100 + 2 * 140) / 7), round((2 * 100 + 5 * 140) / 7)])
    assert np.array_equal(blended[~hole], picture[~hole])
    flat = np.full((40, 40, 3), 90, dtype=np.uint8)
    inside = np.zeros((40, 40), dtype=np.bool_)
    inside[10:30, 10:30] = True
    texture = np.random.default_rng(0).integers(80, 101, (40, 40, 3), dtype=np.uint8)
    texture[:12] = texture[28:] = texture[:, :12] = texture[:, 28:] = 90
    assert np.array_equal(blend_seam(texture, flat, inside), texture)  # it fits already: as it was
    assert np.array_equal(blend_seam(texture, flat, np.ones_like(inside)), texture)  # nothing is known around it
    assert np.array_equal(blend_seam(texture, flat, np.zeros_like(inside)), texture)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_from_threads(tiny_graph: Path, backend: str) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino", reason="needs openvino: pip install 'cisi-net[openvino]'")
    inpaint = Inpainter(tiny_graph, backend, threads=1)
    assert inpaint.backend_reason == f"{tiny_graph.name}: {backend} on the CPU, as asked"
    inpaint.warmup([(64, 64)])
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (64 + 20 * n, 90, 3), dtype=np.uint8) for n in range(4)]
    holes = [rng.random(picture.shape[:2]) < 0.3 for picture in pictures]
    expected = [inpaint(*pair) for pair in zip(pictures, holes, strict=True)]
    same: list[bool] = []

    def work(first: int) -> None:
        for number in range(8):
            index = (first + number) % 4
            same.append(np.array_equal(inpaint(pictures[index], holes[index]), expected[index]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda graph: Inpainter(graph, "tensorrt"), "is a graph; TensorRT runs engines: cisi-build "),
        (
            lambda graph: Inpainter(graph, "cuda"),
            "backend cuda: expected auto, onnxruntime, openvino",
        ),
        (lambda graph: Inpainter(graph, device="gpu"), "device gpu: expected auto, cpu, cuda"),
        (lambda graph: Inpainter(graph, "openvino", device="cuda"), "openvino runs on the CPU, expected --device cpu"),
        (
            lambda graph: Inpainter(graph.with_suffix(".engine"), device="cpu"),
            "engines run on a GPU, expected --device",
        ),
        (lambda graph: Inpainter(graph.with_suffix(".engine"), "openvino"), "is not an .onnx file, and openvino takes"),
    ],
)
def test_backends_that_do_not_take_the_file(tiny_graph: Path, make: Callable[[Path], object], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        make(tiny_graph)


def test_a_single_pass_takes_plain_arrays_alone(tiny_graph: Path) -> None:
    with Inpainter(tiny_graph) as inpainter:
        assert inpainter.backend_reason == f"{tiny_graph.name}: onnxruntime on the CPU, the default for graphs"
        inpaint = SinglePassInpainter(inpainter.backend)
        image, hole = np.zeros((64, 64, 3), dtype=np.uint8), np.zeros((64, 64), dtype=np.bool_)
        with pytest.raises(ValueError, match=r"image: expected uint8 \[H, W, 3\], got float64"):
            inpaint(image.astype(float), hole)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"image: expected uint8 \[H, W, 3\], got uint8 \(0, 64, 3\)"):
            inpaint(image[:0], hole[:0])
        with pytest.raises(ValueError, match=r"hole_mask: expected bool \(64, 64\), got uint8"):
            inpaint(image, hole.astype(np.uint8))  # type: ignore[arg-type]


def test_it_closes_what_it_opened(tiny_graph: Path) -> None:
    image, hole = np.zeros((64, 64, 3), dtype=np.uint8), np.ones((64, 64), dtype=np.bool_)
    with Inpainter(tiny_graph) as inpaint:
        inpaint(image, hole)
    for mask in (hole, ~hole):
        with pytest.raises(GraphError, match=r"<closed Inpainter\(.*\)>: expected one that is open"):
            inpaint(image, mask)
    with pytest.raises(GraphError, match="onnxruntime: the backend is closed"):
        inpaint.backend.run_pixels(image[None], hole[None])
    painter = Painter()
    with Inpainter(painter) as inpaint:
        assert inpaint.backend_reason == "painter: passed in by the caller"
    assert (inpaint(image, hole) == 200).all()  # the caller's own backend stays open
