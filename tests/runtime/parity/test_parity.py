import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from cisi_runtime.codec import decode_pixels, encode_pixels
from cisi_runtime.errors import ParityError
from cisi_runtime.parity.compare import TOLERANCES, Tolerance, compare, tolerance
from cisi_runtime.parity.golden import KINDS, GoldenCase
from cisi_runtime.parity.verdict import parity_table

RNG = np.random.default_rng(8)
IMAGE = RNG.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
HOLE = RNG.random((2, 16, 16)) < 0.4
COMPLETED = np.where(HOLE[:, None], RNG.uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32), decode_pixels(IMAGE)).astype(
    np.float32
)
CASE = GoldenCase("case", "natural", IMAGE, HOLE, COMPLETED, 1e-3)
FLOAT32, FLOAT16 = TOLERANCES["float32"], TOLERANCES["float16"]


def changed(where: npt.NDArray[np.bool_], by: float) -> npt.NDArray[np.float32]:
    result = COMPLETED.copy()
    result[np.nonzero(np.broadcast_to(where[:, None], result.shape))] += np.float32(by)
    return result


def test_the_reference_passes_as_floats_and_as_pixels() -> None:
    for result in (COMPLETED, encode_pixels(COMPLETED)):
        comparison = compare("variant", CASE, result, FLOAT32)
        assert comparison.passed
        assert comparison.max_abs < 1e-7
        assert comparison.levels_changed == 0.0
        assert comparison.hole_psnr_db == float("inf")


def test_figures_are_what_they_say() -> None:
    one_pixel = np.zeros_like(HOLE)
    one_pixel[tuple(np.argwhere(HOLE)[0])] = True
    comparison = compare("variant", CASE, changed(one_pixel, 0.25), FLOAT32)
    assert comparison.max_abs == pytest.approx(0.25, rel=1e-6)
    assert comparison.mean_abs == pytest.approx(0.25 * 3 / COMPLETED.size, rel=1e-6)
    assert comparison.hole_psnr_db == pytest.approx(10 * np.log10(4 / (0.25**2 / HOLE.sum())), rel=1e-6)
    assert comparison.levels_changed == pytest.approx(1 / HOLE.sum())
    assert not comparison.passed


def test_pixels_may_round_but_not_more() -> None:
    other = encode_pixels(COMPLETED).astype(int)
    place = tuple(np.argwhere(HOLE)[0])
    other[place] += np.where(other[place] < 128, 1, -1)
    comparison = compare("variant", CASE, other.astype(np.uint8), FLOAT32)
    assert 0.0 < comparison.max_abs <= 1.0 / 127.5
    assert not comparison.passed


def test_a_known_pixel_may_not_change_at_any_precision() -> None:
    place = tuple(np.argwhere(~HOLE)[0])
    pixels = encode_pixels(COMPLETED)
    pixels[place] ^= 1
    one_pixel = np.zeros_like(HOLE)
    one_pixel[place] = True
    for result in (pixels, changed(one_pixel, 1e-6)):
        comparison = compare("variant", CASE, result, Tolerance(hole_psnr_db=10.0))
        assert not comparison.known_identical
        assert not comparison.passed


def test_not_finite_fails() -> None:
    comparison = compare("variant", CASE, changed(HOLE, np.nan), Tolerance(hole_psnr_db=0.0))
    assert not comparison.finite
    assert not comparison.passed
    assert parity_table([comparison]).splitlines()[1].endswith("FAIL")
    assert "  not finite; " in parity_table([comparison])


def test_psnr_tolerance_looks_at_the_hole() -> None:
    assert compare("variant", CASE, changed(HOLE, 2 * 10 ** (-51 / 20)), FLOAT16).passed
    assert not compare("variant", CASE, changed(HOLE, 2 * 10 ** (-49 / 20)), FLOAT16).passed


def test_cases_beyond_photographs_have_tolerances_of_their_own() -> None:
    assert tolerance("int8", CASE) == TOLERANCES["int8"]
    flat, noise = (dataclasses.replace(CASE, kind=kind) for kind in ("flat", "noise"))
    assert (tolerance("int8", noise).hole_psnr_db, tolerance("int8", flat).hole_psnr_db) == (25.0, 15.5)
    assert tolerance("float32", flat).max_abs == 3e-3
    assert tolerance("float32", noise) == TOLERANCES["float32"]
    precise = dataclasses.replace(CASE, float32_error=1e-7)
    kinds = {kind: tolerance("float32", dataclasses.replace(precise, kind=kind)) for kind in KINDS}
    assert {kind: item.max_abs for kind, item in kinds.items()} == pytest.approx(
        {"natural": 6e-6, "flat": 8e-5, "noise": 2e-6}
    )
    assert tolerance("float16", noise).hole_psnr_db == 45.0
    # Others than ONNX Runtime sum in other orders.
    assert tolerance("float32", precise, "openvino").max_abs == pytest.approx(2.5e-5)
    assert tolerance("float32", CASE, "openvino").max_abs == 6e-4


def test_another_shape_is_an_error() -> None:
    with pytest.raises(ParityError, match="shape"):
        compare("variant", CASE, COMPLETED[:1], FLOAT32)


def test_table_names_variant_case_and_verdict() -> None:
    good = compare("a variant", CASE, COMPLETED, FLOAT32)
    table = parity_table([good, dataclasses.replace(good, max_abs=1.0)])
    assert [line.split()[-1] for line in table.splitlines()[:3]] == ["verdict", "pass", "FAIL"]
    assert "would pass at max 1e+00" in table.splitlines()[3]
    assert max(map(len, table.splitlines())) <= 100
    assert "a variant" in table
