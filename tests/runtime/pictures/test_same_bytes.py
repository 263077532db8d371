"""A file has the same bytes whatever else its process wrote, and with how many threads."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import AvifImagePlugin, Image, ImageFile

from cisi_export.golden_cases import natural_picture
from cisi_runtime.pictures.picture import Picture
from cisi_runtime.pictures.reading import decode_picture
from cisi_runtime.pictures.writing import encode_picture

NOISE = np.random.default_rng(3).integers(0, 256, (400, 500, 3), dtype=np.uint8)


def progressive() -> Picture:
    """Noise, as it was read from a progressive JPEG file."""
    target = io.BytesIO()
    Image.fromarray(NOISE).save(target, "JPEG", quality=95, progressive=True)
    return decode_picture(target.getvalue(), "noise")


def test_the_same_bytes_of_avif_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = natural_picture(700, 900, np.random.default_rng(1))
    results = set()
    for threads in (0, 1, 2, 7):
        monkeypatch.setattr(AvifImagePlugin, "DEFAULT_MAX_THREADS", threads)
        results.add(encode_picture(Picture(pixels), "AVIF", "noise"))
    assert len(results) == 1


def test_the_same_bytes_before_beside_and_after_a_progressive_file() -> None:
    size = ImageFile.MAXBLOCK
    large, picture = progressive(), Picture(NOISE)
    before = encode_picture(picture, "PNG", "noise")
    coded = encode_picture(large, "JPEG", "noise")
    assert size == ImageFile.MAXBLOCK
    assert encode_picture(picture, "PNG", "noise") == before
    with ThreadPoolExecutor(8) as pool:
        kinds = [(large, "JPEG") if number % 3 == 0 else (picture, "PNG") for number in range(48)]
        results = list(pool.map(lambda kind: encode_picture(*kind, "noise"), kinds))
    assert all(
        result == (coded if kind == "JPEG" else before) for (_, kind), result in zip(kinds, results, strict=True)
    )
    assert size == ImageFile.MAXBLOCK
