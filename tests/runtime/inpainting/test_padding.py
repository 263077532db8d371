import dataclasses

import numpy as np
import pytest

from cisi_runtime.architecture import PRESETS
from cisi_runtime.contract import Contract
from cisi_runtime.inpainting.padding import pad
from tests.support.networks import provenance

CONTRACT = Contract(PRESETS["tiny"], provenance())


@pytest.mark.parametrize("rule", ["reflect", "edge", "hole"])
@pytest.mark.parametrize("size", [(1, 1), (1, 70), (63, 65), (64, 80), (250, 2), (97, 113)])
def test_every_size_becomes_one_that_the_graph_takes(rule: str, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    hole = rng.random(size) < 0.3
    padded, padded_hole = pad(rgb, hole, dataclasses.replace(CONTRACT, padding=rule))
    assert padded.shape[:2] == padded_hole.shape
    assert all(side % 16 == 0 and side >= 64 for side in padded_hole.shape)
    assert all(after - max(before, 64) < 16 for after, before in zip(padded_hole.shape, size, strict=True))
    assert np.array_equal(padded[: size[0], : size[1]], rgb)
    assert np.array_equal(padded_hole[: size[0], : size[1]], hole)


def padded_row(length: int, rule: str) -> list[int]:
    row = np.arange(length, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    padded, _ = pad(row, np.zeros((1, length), dtype=np.bool_), dataclasses.replace(CONTRACT, padding=rule))
    values: list[int] = padded[0, :, 0].tolist()
    return values


def test_reflection_leaves_the_edge_out_and_falls_back_to_it() -> None:
    assert padded_row(60, "reflect")[58:] == [58, 59, 58, 57, 56, 55]
    assert padded_row(3, "reflect")[:8] == [0, 1, 2, 1, 0, 0, 0, 0]
    assert padded_row(1, "reflect") == [0] * 64


def test_edge_and_hole() -> None:
    assert padded_row(60, "edge")[58:] == [58, 59, 59, 59, 59, 59]
    rgb = np.full((60, 64, 3), 9, dtype=np.uint8)
    padded, hole = pad(rgb, np.zeros((60, 64), dtype=np.bool_), dataclasses.replace(CONTRACT, padding="hole"))
    assert hole[60:].all()
    assert not hole[:60].any()
    assert not padded[60:].any()
