"""The ablation: its verdicts on made figures, and a run of it from end to end."""

import itertools
import json
import math
from pathlib import Path

import benchmarks.ablation as ablation
import numpy as np
import pytest
import torch
from benchmarks.ablation_arms import ARMS, COMPARED_ARMS, norms_of
from benchmarks.ablation_table import Figures, comparison_table, paired_difference, quality_table
from benchmarks.resumable_runs import checkpoint_method

from cisi_train.checkpoint import load_checkpoint
from cisi_train.lpips import Lpips, load_lpips
from cisi_train.network.layers import Normalise
from cisi_train.objective import EXPERIMENTS
from cisi_train.trainer import Trainer
from cisi_train.vgg import VggFeatures
from tests.conftest import RunMain
from tests.support.published_weights import write_lpips, write_vgg
from tests.support.training_runs import interrupting, stats


@pytest.mark.parametrize(
    ("differences", "mean", "margin", "verdict"),
    [
        # By hand: the standard deviation is 0.1, the margin 4.303 * 0.1 / sqrt(3).
        ((0.2, 0.3, 0.4), 0.3, 0.2484, "higher"),
        ((-0.2, -0.3, -0.4), -0.3, 0.2484, "lower"),
        ((0.1, 0.2, 0.3), 0.2, 0.2484, "within the spread"),
        ((0.0, 0.0, 0.0), 0.0, 0.0, "within the spread"),
        # Two seeds: 12.706 * 0.0707 / sqrt(2).
        ((0.2, 0.3), 0.25, 0.6353, "within the spread"),
        ((5.0,), 5.0, math.inf, "within the spread"),
    ],
)
def test_a_verdict(differences: tuple[float, ...], mean: float, margin: float, verdict: str) -> None:
    # What both arms of a seed have in common cancels, however large it is.
    common = (15.0, 11.0, 19.0)
    found = paired_difference(
        {seed: common[seed] + difference for seed, difference in enumerate(differences)}, dict(enumerate(common))
    )
    assert found is not None
    assert (found.mean, found.margin) == (pytest.approx(mean), pytest.approx(margin, abs=1e-4))
    assert found.verdict == verdict


def test_only_seeds_that_both_arms_have_are_compared() -> None:
    found = paired_difference({0: 3.0, 1: 3.1, 7: 99.0}, {0: 1.0, 1: 1.1, 2: -99.0})
    assert found is not None
    assert (found.mean, found.verdict) == (pytest.approx(2.0), "higher")
    assert paired_difference({0: 1.0}, {1: 1.0}) is None
    many = dict.fromkeys(range(11), 1.0)
    with pytest.raises(ValueError, match="expected at most 10 seeds, got 11"):
        paired_difference(many, many)


def test_tables_of_what_is_finished() -> None:
    arms = {
        "a": {0: Figures(10.0, 15.0, 0.2, 0.21), 1: Figures(11.0, 15.2, 0.3, 0.23)},
        "b": {0: Figures(9.0, 16.0, 0.2, 0.20), 1: Figures(9.0, 16.2, 0.2, 0.22)},
        "c": {0: Figures(9.0, 16.5, 0.25)},
        "d": {},
    }
    assert quality_table(arms, {"mean": Figures(19.0, 13.0, 0.26)})[2:] == [
        "| mean | | 13.00 dB | 19.00 % | 0.260 | not finished |",
        "| a | 2 | 15.10 ± 0.14 dB | 10.50 ± 0.71 % | 0.250 ± 0.071 | 0.2200 ± 0.0141 |",
        "| b | 2 | 16.10 ± 0.14 dB | 9.00 ± 0.00 % | 0.200 ± 0.000 | 0.2100 ± 0.0141 |",
        "| c | 1 | 16.50 dB | 9.00 % | 0.250 | not finished |",
        "| d | 0 | not finished | not finished | not finished | not finished |",
    ]
    assert comparison_table(arms, [("b", "a"), ("c", "b"), ("d", "c")])[2:] == [
        "| b against a | +1.00 ± 0.00 dB | higher | -0.050 ± 0.635 | within the spread | -0.0100 ± 0.0000 | lower |",
        "| c against b | +0.50 dB | one seed has no spread | +0.050 | one seed has no spread | not finished | |",
        "| d against c | not finished | | not finished | | not finished | |",
    ]


@pytest.mark.slow
def test_an_interrupted_ablation_goes_on_where_it_was(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    names = ("1-one-group", "2")
    val, out = tmp_path / "val", tmp_path / "runs"
    val.mkdir()
    (val / "00.png").write_bytes((photo_folder / "01.png").read_bytes())
    command = ["--data", photo_folder, "--val", val, "--out", out, "--seeds", 1, "--size", 64, "--batch", 2]
    command += [word for name in names for word in ("--arm", name)]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", interrupting(Trainer.train_step, 1))
        assert run_main(ablation.main, *command, "--steps", 2)[0] == 130
    assert len(stats(out / "1-one-group-0")) == 1
    status, tables, errors = run_main(ablation.main, *command, "--steps", 2)
    assert status == 0, errors
    assert [line["step"] for name in names for line in stats(out / f"{name}-0")] == [1, 2, 1, 2]
    assert "| 1, norms of one group | 1 |" in tables
    assert "| 2 | 1 |" in tables
    assert tables.count("| 2 against 1, norms of one group | ") == 2
    assert " against 1 |" not in tables
    results = [(out / f"{name}-0" / "result.json").read_text() for name in names]

    # What is finished is not trained again, not even when only its result is missing.
    monkeypatch.delattr(Trainer, "train_step")
    (out / "1-one-group-0" / "result.json").unlink()
    assert run_main(ablation.main, *command, "--steps", 2)[:2] == (0, tables)
    assert [(out / f"{name}-0" / "result.json").read_text() for name in names] == results

    status, _, errors = run_main(ablation.main, *command, "--steps", 3)
    assert status == 1
    assert "budget.json: the runs here began otherwise: steps was 2, now 3; choose another --out" in errors
    (val / "01.png").write_bytes((photo_folder / "02.png").read_bytes())
    status, _, errors = run_main(ablation.main, *command, "--steps", 2, "--table")
    assert (status, "val_sha256 was" in errors) == (1, True)
    (val / "01.png").unlink()
    (out / "2-0" / "result.json").write_text(json.dumps({"centre": {"psnr_db": 1.0}}))
    status, _, errors = run_main(ablation.main, *command, "--steps", 2, "--table")
    missing = "result.json: centre: unknown keys [], missing keys ['l1_percent', 'lpips', 'ssim']"
    assert (status, missing in errors) == (1, True)


@pytest.mark.slow
def test_arms_that_need_published_weights(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    vgg, lpips, out, val = (tmp_path / name for name in ("vgg.npz", "lpips.npz", "runs", "val"))
    write_vgg(vgg)
    write_lpips(lpips)
    val.mkdir()
    (val / "00.png").write_bytes((photo_folder / "01.png").read_bytes())
    command = ["--data", photo_folder, "--val", val, "--out", out, "--seeds", 1, "--size", 64, "--batch", 2]
    command += ["--steps", 4, "--l1-first", 0.5]
    for arm, missing in (("swapped", "--vgg"), ("select-lpips", "--lpips")):
        status, _, errors = run_main(ablation.main, *command, "--arm", arm)
        assert (status, f"--arm {arm} needs {missing}" in errors) == (2, True)
    status, _, errors = run_main(ablation.main, *command, "--size", 72)
    assert (status, "72 is not a multiple of 16" in errors, out.exists()) == (2, True, False)

    # Every checkpoint is worse by LPIPS than the one before: of those with all losses the first is chosen.
    distances = itertools.count(1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Lpips, "of_pixels", lambda *_: next(distances))
        status, _, errors = run_main(ablation.main, *command, "--lpips", lpips, "--arm", "select-lpips")
    assert status == 0, errors
    chosen = out / "select-lpips-0" / "best.pt"
    assert load_checkpoint(chosen).contract.provenance.steps == 3
    assert len(stats(chosen.parent)) == 4
    figures = ablation.measure("chosen", checkpoint_method(chosen), val, 64, load_lpips(lpips))["centre"]
    assert ablation.read_result(chosen.with_name("result.json"))["centre"].psnr_db == figures.psnr_db

    # What is finished is in the tables too.
    status, tables, errors = run_main(ablation.main, *command, "--lpips", lpips, "--vgg", vgg, "--arm", "swapped")
    assert status == 0, errors
    assert "swapped_vgg" not in stats(out / "swapped-0")[1]
    assert "swapped_vgg" in stats(out / "swapped-0")[2]
    assert tables.count("| full, `--select lpips` | 1 |") == 2
    assert "| Seeds | PSNR | L1 | SSIM | LPIPS |" in tables

    # Runs with other weights make no table with these.
    torch.manual_seed(1)
    np.savez(vgg, **{name: value.numpy() for name, value in VggFeatures().state_dict().items()})
    status, _, errors = run_main(ablation.main, *command, "--lpips", lpips, "--vgg", vgg, "--table")
    assert (status, "vgg.json: the runs here began otherwise: vgg_sha256 was" in errors) == (1, True)
    status, _, errors = run_main(ablation.main, *command, "--table")
    assert (status, "now None; choose another --out" in errors) == (1, True)


def test_the_weights_named_decide_which_arms_run() -> None:
    plain = set(ablation.chosen_arms((), vgg=False, lpips=False))
    assert plain == set(ARMS) - {"perceptual", "perceptual-weight-1", "swapped", "select-psnr", "select-lpips"}
    assert set(ablation.chosen_arms((), vgg=False, lpips=True)) == plain | {"select-psnr", "select-lpips"}
    assert ablation.chosen_arms((), vgg=True, lpips=True) == list(ARMS)


def test_every_arm_is_compared_and_exists() -> None:
    assert {name for pair in COMPARED_ARMS for name in pair} == set(ARMS)
    assert {arm.experiment for arm in ARMS.values()} == set(EXPERIMENTS)


def test_norms_of_one_group_leave_channels_their_proportions() -> None:
    x = (
        torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        + torch.tensor([0.0, 4.0, 8.0])[:, None, None]
    )
    with norms_of(ARMS["1-one-group"]):
        together = Normalise()(x)
    with norms_of(ARMS["1"]):
        alone = Normalise()(x)
    assert torch.allclose(alone.mean(dim=(2, 3)), torch.zeros(2, 3), atol=1e-5)
    assert torch.allclose(together.mean(dim=(1, 2, 3)), torch.zeros(2), atol=1e-5)
    assert (together.mean(dim=(2, 3)).diff(dim=1) > 1.0).all()
