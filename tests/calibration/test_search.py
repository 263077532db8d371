"""The search on a made network in which noise adds up."""

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from cisi_calibration.quality import Loss
from cisi_calibration.search import costliest_in_int8, find_placement
from cisi_runtime.errors import ParityError


class AdditiveNoise:
    """Evaluates a "graph", the set of its INT8 layers, by the sum of their noise powers."""

    def __init__(self, noise: dict[str, float], ssim_loss: dict[str, float] | None = None) -> None:
        self.noise, self.ssim_loss = noise, ssim_loss or {}
        self.calls = 0

    def quantise(self, kept_float: Collection[str]) -> Any:
        return frozenset(self.noise) - frozenset(kept_float)

    def loss(self, int8: Any) -> Loss:
        self.calls += 1
        power = sum(self.noise[name] for name in int8)
        psnr = -10 * np.log10(power) if power else 99.0
        return Loss(float(psnr), float(psnr), None, 0.0, sum(self.ssim_loss.get(name, 0.0) for name in int8))


def search(quality: AdditiveNoise, budget_db: float) -> Any:
    return find_placement(list(quality.noise), quality.quantise, quality, budget_db)  # type: ignore[arg-type]


def fewest(quality: AdditiveNoise, budget_db: float) -> int:
    names = list(quality.noise)
    return next(
        count
        for count in range(len(names))
        if any(
            quality.loss(quality.quantise(kept_float)).within(budget_db)
            for kept_float in itertools.combinations(names, count)
        )
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_fewest_layers_stay_in_float(seed: int) -> None:
    powers = 10 ** np.random.default_rng(seed).uniform(-7, -4, 10)
    quality = AdditiveNoise({f"layer {index}": float(power) for index, power in enumerate(powers)})
    for budget in (30.0, 40.0, 45.0):
        expected = fewest(quality, budget)
        if expected > 5:
            continue
        placement = search(quality, budget)
        assert len(placement.kept_float) == expected
        assert placement.final_loss.within(budget)
        assert placement.final_loss == quality.loss(quality.quantise(placement.kept_float))
        assert set(placement.per_layer) == set(quality.noise)


def test_all_in_int8_when_the_budget_allows_it() -> None:
    quality = AdditiveNoise(dict.fromkeys("abcd", 1e-6))
    placement = search(quality, 50.0)
    assert placement.kept_float == ()
    assert placement.final_loss == placement.all_int8
    assert quality.calls == 5


def test_the_costliest_layer_is_the_one_that_stays_in_float() -> None:
    placement = search(AdditiveNoise({"a": 1e-6, "b": 1e-3, "c": 1e-6, "d": 1e-6}), 50.0)
    assert placement.kept_float == ("b",)
    assert placement.per_layer["b"].hole_psnr_db == pytest.approx(30.0)


def test_what_is_lost_against_the_photographs_counts_too() -> None:
    quality = AdditiveNoise({"a": 1e-6, "b": 2e-6, "c": 1e-6, "d": 1e-6}, ssim_loss={"a": 0.009})
    assert search(quality, 35.0).kept_float == ("a",)


def test_a_budget_that_cannot_be_met() -> None:
    quality = AdditiveNoise(dict.fromkeys("abcdefgh", 1e-3))
    with pytest.raises(ParityError, match="the budget of 40 dB cannot be met: with all 8 candidates in INT8 hole PSNR"):
        search(quality, 40.0)


def test_what_helps_when_a_budget_cannot_be_met() -> None:
    powers = dict(zip("abcdefgh", (3e-3, 1e-2, 6e-5, 5e-5, 5e-3, 4e-3, 5e-5, 5e-5), strict=True))
    named = "costliest, alone in INT8: b 20.0 dB, e 23.0 dB, f 24.0 dB, a 25.2 dB, c 42.2 dB; "
    # With the four costliest in float it is 36.8 dB.
    with pytest.raises(ParityError, match=f"{named}expected a lower --budget-db, 35 at least$"):
        search(AdditiveNoise(powers), 40.0)
    for budget in (35.0, 40.0):
        with pytest.raises(ParityError, match=r"; expected other ranges \(--method of cisi-calibrate"):
            search(AdditiveNoise(powers | {"c": 1e-3}), budget)


def test_the_costliest_of_those_in_int8() -> None:
    placement = search(AdditiveNoise({"a": 1e-6, "b": 1e-3, "c": 2e-6, "d": 1e-6}), 50.0)
    assert costliest_in_int8(placement.per_layer, placement.kept_float) == (
        "costliest, alone in INT8: c 57.0 dB, a 60.0 dB, d 60.0 dB"
    )
