"""From file to file, whatever the size, the mode, the format and the mask."""

import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cisi_runtime.backends.ort import OnnxRuntimeBackend
from cisi_runtime.batch import job as job_module
from cisi_runtime.batch import photograph as photograph_module
from cisi_runtime.batch.job import Job, run_job
from cisi_runtime.inpainting import inpainter as inpainter_module
from cisi_runtime.inpainting.inpainter import Inpainter
from cisi_runtime.inpainting.timing import StageTimer
from cisi_runtime.pictures.reading import read_picture

MODES = {"png": ("1", "L", "LA", "P", "RGB", "RGBA"), "tif": ("L", "LA", "RGB", "RGBA"), "webp": ("RGB", "RGBA")}


@pytest.fixture(scope="module")
def inpaint(tiny_graph: Path) -> Inpainter:
    return Inpainter(tiny_graph, threads=1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    kind=st.sampled_from([(suffix, mode) for suffix, modes in MODES.items() for mode in modes]),
    share=st.sampled_from([0.0, 0.02, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_any_file(
    tmp_path: Path, inpaint: Inpainter, height: int, width: int, kind: tuple[str, str], share: float, seed: int
) -> None:
    suffix, mode = kind
    rng = np.random.default_rng(seed)
    hole = rng.random((height, width)) < share
    Image.fromarray(np.where(hole, np.uint8(200), np.uint8(0))).save(tmp_path / "mask.png")
    results = []
    for under in (0, 1):  # two photographs that differ under the hole alone
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        pixels[hole] = rng.integers(0, 256, (int(hole.sum()), 3)) if under else 7
        image = Image.fromarray(pixels).convert("RGB")
        if mode in ("LA", "RGBA"):
            image.putalpha(
                Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8))
            )
        # Without dithering, which would spread what is under the hole.
        image = image.quantize(8) if mode == "P" else image.convert(mode, dither=Image.Dither.NONE)
        photo = tmp_path / f"photo.{suffix}"
        image.save(photo, **({"lossless": True, "exact": True} if suffix == "webp" else {}))
        done = run_job(Job(photo, tmp_path / "mask.png", tmp_path / f"out.{suffix}"), lambda: inpaint)
        before, after = read_picture(photo), read_picture(tmp_path / f"out.{suffix}")
        assert np.array_equal(done.hole_mask, hole)
        assert after.size == (height, width)
        assert np.array_equal(after.rgb[~hole], before.rgb[~hole])
        assert (after.alpha is None) == (before.alpha is None)
        if before.alpha is not None and after.alpha is not None:
            assert np.array_equal(after.alpha, before.alpha)
        with Image.open(io.BytesIO((tmp_path / f"out.{suffix}").read_bytes())) as result:
            changed = {"1": "L", "P": "RGB"} if hole.any() else {}
            assert result.mode == changed.get(mode, mode)
        results.append(after.rgb)
    if mode != "P":  # quantising spreads what is under the hole over all of the picture
        assert np.array_equal(*results)


def test_each_piece_of_work_counts_for_its_stage(
    tiny_graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a clock that only these pieces move on, by different powers of two: none is left out or counted twice."""
    now, moving = 0.0, threading.Lock()
    monkeypatch.setattr(time, "perf_counter", lambda: now)

    def takes(owner: Any, name: str, seconds: float) -> None:
        original = getattr(owner, name)

        def slow(*args: Any, **kwargs: Any) -> Any:
            nonlocal now
            with moving:  # photograph and mask are decoded side by side
                now += seconds
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, slow)

    for number, (owner, name) in enumerate(
        [
            *(
                (photograph_module, name)
                for name in ("decode_picture", "decode_mask", "encode_picture", "largest_change")
            ),
            *((job_module, "_write"), (inpainter_module, "plan_windows"), (OnnxRuntimeBackend, "run")),
            *((inpainter_module.WindowView, name) for name in ("finish", "with_detail")),
        ]
    ):
        takes(owner, name, 2.0**number)
    hole = np.zeros((80, 96), dtype=np.uint8)
    hole[20:50, 30:60] = 255
    Image.fromarray(hole).save(tmp_path / "mask.png")
    pixels = np.random.default_rng(2).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg")
    timer = StageTimer()
    with Inpainter(tiny_graph, threads=1) as inpaint:
        job = Job(tmp_path / "photo.jpg", tmp_path / "mask.png", tmp_path / "out.jpg")
        result = run_job(job, lambda: inpaint, timer=timer)
    seconds = {stage: milliseconds / 1000.0 for stage, milliseconds in timer.milliseconds.items()}
    assert seconds == {
        **{"decode": 1 + 2, "prepare": 32, "copy in": 0, "run": 64, "copy out": 0, "finish": 128, "detail": 256},
        **{"encode": 4 + 16, "check": 8},
    }
    assert sum(seconds.values()) == now
    assert result.milliseconds == 1000.0 * (32 + 64 + 128 + 256)
