"""The rows of the paper's internal analysis, as `cisi-train --experiment` trains them."""

from pathlib import Path

import pytest
import torch

from cisi_train.checkpoint import load_checkpoint
from cisi_train.network import corrupt
from tests.support.training_runs import Trainer, options, stats


@pytest.mark.parametrize(
    ("experiment", "missing"),
    [
        ("1", {"reconstructed_l1", "style_l1", "content_l1"}),
        ("2", {"content_l1", "mutual_content"}),
        ("3", set()),
    ],
)
def test_experiments_of_the_internal_analysis(
    photo_folder: Path, tmp_path: Path, experiment: str, missing: set[str]
) -> None:
    Trainer(options(photo_folder, tmp_path / "full", steps=1)).run()
    Trainer(options(photo_folder, tmp_path / "part", steps=1, experiment=experiment)).run()
    full, part = stats(tmp_path / "full")[0], stats(tmp_path / "part")[0]
    assert missing <= set(full) - set(part)
    assert (set(part) == set(full)) == (experiment == "3")
    # The first loss of the run, before anything differs: without weights the hole counts once, not five times.
    assert part["inpainted_psnr"] < full["inpainted_psnr"]


@pytest.mark.parametrize("init", [False, True])
def test_without_separation_every_picture_is_filled_in_the_style_that_was_trained(
    photo_folder: Path, tmp_path: Path, tiny_checkpoint_path: Path, init: bool
) -> None:
    start = tiny_checkpoint_path if init else None
    Trainer(options(photo_folder, tmp_path, steps=2, save_every=1, experiment="1", init=start)).run()
    torch.manual_seed(0)
    corrupted = corrupt(torch.rand(2, 3, 64, 64) * 2 - 1, torch.zeros(2, 1, 64, 64))
    for name in ("best.pt", "last.pt"):
        style = load_checkpoint(tmp_path / name).generator().style(corrupted)
        assert torch.equal(style, torch.zeros_like(style))  # what the decoder gets in training
