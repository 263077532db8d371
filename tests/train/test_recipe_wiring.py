"""What a run makes of its recipe: each setting reaches what it is there for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cisi_train.checkpoint import load_checkpoint
from cisi_train.colour_statistics import ColourStatistics
from cisi_train.data import TrainingSamples
from cisi_train.reporting import HeldOutPictures
from tests.support.training_runs import Trainer, options, stats


@pytest.mark.parametrize(("schedule", "rates"), [("constant", {1e-3}), ("annealed", {2e-5, 4e-5})])
def test_the_rate_follows_the_schedule(photo_folder: Path, tmp_path: Path, schedule: str, rates: set[float]) -> None:
    Trainer(options(photo_folder, tmp_path, steps=6, rate_schedule=schedule)).run()
    used = [line["lr"] for line in stats(tmp_path)]
    assert {round(rate, 9) for rate in used[:2]} == rates
    assert (used[-1] == used[0]) == (schedule == "constant")


@pytest.mark.parametrize(
    ("changes", "best_step"),
    [
        ({"select": "psnr"}, 2),
        ({"select": "lpips"}, 6),
        ({"select": "last"}, 6),
        # Of the fourth and sixth step, which have all losses, the fourth has the higher PSNR.
        ({"select": "psnr", "l1_first": 0.4}, 4),
    ],
)
def test_the_best_checkpoint_is_the_selected_one(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], best_step: int
) -> None:
    measured = iter([(16.0, 0.3), (15.5, 0.25), (15.0, 0.2)])
    measure = HeldOutPictures.measure
    monkeypatch.setattr(HeldOutPictures, "measure", lambda *given: (*next(measured), measure(*given)[2]))
    Trainer(options(photo_folder, tmp_path, save_every=2, **changes)).run()
    assert load_checkpoint(tmp_path / "best.pt").contract.provenance.steps == best_step


@pytest.mark.parametrize("holes", ["mixed", "paper", "strokes"])
def test_the_holes_are_of_the_kind(photo_folder: Path, tmp_path: Path, holes: str) -> None:
    trainer = Trainer(options(photo_folder, tmp_path, holes=holes))
    crops, found = next(iter(trainer._batches()))
    assert len(crops) == 2
    expected = TrainingSamples(trainer.folder.training, 64, 1, holes)
    assert torch.equal(found, torch.stack([expected[number][1] for number in range(2)]))


@pytest.mark.parametrize("changes", [{"zoom": 2.0}, {"permute_colours": True}])
def test_crops_vary_as_the_run_says(photo_folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    trainer = Trainer(options(photo_folder, tmp_path, batch=8, **changes))
    crops, _ = next(iter(trainer._batches()))
    expected, plain = (TrainingSamples(trainer.folder.training, 64, 1, "mixed", **varied) for varied in (changes, {}))
    assert torch.equal(crops, torch.stack([expected[number][0] for number in range(8)]))
    assert not torch.equal(crops, torch.stack([plain[number][0] for number in range(8)]))


def test_the_colours_are_those_of_the_photographs(photo_folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(options(photo_folder, tmp_path))
    samples = TrainingSamples(trainer.folder.training, 64, 1, "mixed")
    assert trainer.objective.colours == trainer.state.colours == ColourStatistics.of_samples(samples)
    trainer.run()
    resumed = Trainer(options(photo_folder, tmp_path, steps=7, resume=True))
    assert resumed.objective.colours == trainer.state.colours
