"""The two ways to train, which checkpoint is the best, and the colours of a folder."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from cisi_runtime.architecture import Architecture
from cisi_runtime.errors import ContractError
from cisi_train.checkpoint import load_checkpoint
from cisi_train.cli_train import train
from cisi_train.colour_statistics import ColourStatistics, colour_of
from cisi_train.data import TrainingSamples
from cisi_train.recipe import RECIPES, Recipe
from cisi_train.schedule import lr_factor
from cisi_train.selection import Candidate
from tests.support.published_weights import write_lpips


def run(data: Path, out: Path, *more: object) -> Any:
    arguments = ["--data", data, "--out", out, "--preset", "tiny", "--size", 64, "--batch", 4, "--no-perceptual"]
    result = CliRunner().invoke(train, [str(word) for word in (*arguments, *more)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def resolved(data: Path, out: Path, *more: object) -> dict[str, Any]:
    return dict(json.loads(run(data, out, "--dry-run", *more).stdout))


@pytest.fixture
def lpips_file(tmp_path: Path) -> Path:
    """The metric with random weights, as a file."""
    write_lpips(tmp_path / "lpips.npz")
    return tmp_path / "lpips.npz"


def test_every_field_of_the_recipes_differs_and_is_an_option() -> None:
    ours, paper = (dataclasses.asdict(RECIPES[name]) for name in ("ours", "paper"))
    assert ours == dataclasses.asdict(Recipe())
    assert all(ours[name] != paper[name] for name in ours)
    options = {parameter.name for parameter in train.params}
    assert set(ours) <= options


def test_a_recipe_decides_what_is_not_named(photo_folder: Path, tmp_path: Path) -> None:
    paper = resolved(photo_folder, tmp_path / "a", "--recipe", "paper")
    expected = dataclasses.asdict(RECIPES["paper"])
    assert {name: paper["options"][name] for name in expected} == expected
    assert paper["options"]["recipe"] == "paper"
    assert {name for name in paper["losses"] if name.startswith("style_")} == {"style_l1"}
    mixed = resolved(photo_folder, tmp_path / "b", "--recipe", "paper", "--holes", "strokes", "--style-losses")
    assert mixed["options"]["holes"] == "strokes"
    assert mixed["options"]["rate_schedule"] == "constant"
    assert {"style_spread", "style_alignment", "style_colour"} <= set(mixed["losses"])


def test_a_run_of_before_there_was_a_choice_goes_on_with_l1(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(photo_folder, out, "--steps", 2, "--image-loss", "l1")
    options = json.loads((out / "options.json").read_text())
    del options["image_loss"]
    (out / "options.json").write_text(json.dumps(options))
    saved = torch.load(out / "last.pt")
    del saved["configuration"]["image_loss"]
    torch.save(saved, out / "last.pt")
    again = CliRunner().invoke(train, ["--out", str(out), "--resume", "--steps", "3"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert "image loss l1," in again.stderr
    assert "inpainted_l1" in json.loads((out / "stats.jsonl").read_text().splitlines()[-1])


def test_it_is_shown_saved_and_resumed(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = run(photo_folder, out, "--recipe", "paper", "--steps", 2, "--perceptual-weight", 0.5)
    assert "recipe paper: holes paper, optimiser adam, rate schedule constant, style losses no, " in result.stderr
    assert "style losses no, image loss l1, perceptual weight 0.5," in result.stderr
    saved = load_checkpoint(out / "last.pt").configuration
    assert (saved["recipe"], saved["discriminator_input"], saved["perceptual_weight"]) == ("paper", "direct", 0.5)
    again = CliRunner().invoke(train, ["--out", str(out), "--resume", "--steps", "3"], catch_exceptions=False)
    assert again.exit_code == 0, again.output
    assert "recipe paper: holes paper" in again.stderr
    assert load_checkpoint(out / "last.pt").configuration["perceptual_weight"] == 0.5
    more = ["--out", str(out), "--resume", "--steps", "4", "--discriminator-input", "composite"]
    changed = CliRunner().invoke(train, more)
    assert changed.exit_code == 2
    assert "--discriminator-input was direct, now composite" in changed.output


def test_without_an_average_the_newest_weights_are_exported(photo_folder: Path, tmp_path: Path) -> None:
    run(photo_folder, tmp_path / "a", "--steps", 3, "--no-average", "--select", "last")
    best, last = (load_checkpoint(tmp_path / "a" / name).weights for name in ("best.pt", "last.pt"))
    assert all(torch.equal(best[name], last[name].half().float()) for name in last)
    run(photo_folder, tmp_path / "b", "--steps", 3)
    averaged, last = (load_checkpoint(tmp_path / "b" / name).weights for name in ("averaged.pt", "last.pt"))
    assert not all(torch.equal(averaged[name], last[name].half().float()) for name in last)


def test_the_rate_of_the_paper_is_constant() -> None:
    assert {lr_factor(progress / 10, step, "constant") for progress in range(10) for step in (0, 10, 1000)} == {1.0}
    assert lr_factor(0.0, 0, "annealed") == pytest.approx(0.02)


FIRST = Candidate(step=500, psnr_db=16.0, lpips=0.30, has_all_losses=False)
SHARP = Candidate(step=1000, psnr_db=15.5, lpips=0.20, has_all_losses=True)
BLURRED = Candidate(step=1500, psnr_db=16.5, lpips=0.31, has_all_losses=True)


@pytest.mark.parametrize(
    ("select", "order", "best"),
    [
        ("psnr", (FIRST, SHARP, BLURRED), BLURRED),
        ("psnr", (FIRST, SHARP), SHARP),  # what has all losses goes first
        ("psnr", (BLURRED, SHARP), BLURRED),
        ("lpips", (FIRST, SHARP, BLURRED), SHARP),
        ("lpips", (FIRST, BLURRED), BLURRED),
        ("lpips", (FIRST, dataclasses.replace(FIRST, step=600, psnr_db=15.9, lpips=0.1)), FIRST),
        ("last", (BLURRED, SHARP, FIRST), FIRST),
    ],
)
def test_which_checkpoint_is_the_best(select: Any, order: tuple[Candidate, ...], best: Candidate) -> None:
    chosen: Candidate | None = None
    for candidate in order:
        if candidate.is_better_than(chosen, select):
            chosen = candidate
    assert chosen == best


def test_the_chosen_step_is_printed_with_what_chose_it(photo_folder: Path, tmp_path: Path, lpips_file: Path) -> None:
    arguments = ("--steps", 4, "--save-every", 2, "--select", "lpips", "--lpips", lpips_file)
    result = run(photo_folder, tmp_path / "run", *arguments, "--json")
    end = json.loads(result.stdout)
    best = end["best_checkpoint"]
    lines = [line for line in result.stderr.splitlines() if line.startswith("step ")]
    measured = {line.split(": ")[0]: line.rsplit("LPIPS ", 1)[1] for line in lines}
    assert measured[f"step {best['step']}"] == f"{best['lpips']:.4f}"
    assert best["lpips"] == pytest.approx(min(map(float, measured.values())), abs=1e-4)


def test_colours_are_those_of_the_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        level = 60 + 10 * number
        pixels = np.full((80, 80, 3), (level, level // 2, 20), dtype=np.uint8)
        Image.fromarray(pixels + rng.integers(0, 9, pixels.shape, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    paths = tuple(sorted(tmp_path.glob("*.png")))
    found = ColourStatistics.of_samples(TrainingSamples(paths, 64, 0))
    assert found == ColourStatistics.of_samples(TrainingSamples(paths, 64, 0))
    # Mean level 115 of red, 57 of green, 20 of blue, and four of noise on each.
    levels = np.array([115 + 4, 57.25 + 4, 20 + 4]) / 127.5 - 1
    assert found.mean[0] == pytest.approx(levels.mean(), abs=0.02)
    assert found.mean[1] == pytest.approx(levels[0] - levels[2], abs=0.03)
    assert found.std[1] == pytest.approx(34.5 / 127.5, rel=0.1)
    image = torch.rand(5, 3, 64, 64) * 2 - 1
    expected = (colour_of(image) - torch.tensor(found.mean)) / torch.tensor(found.std)
    assert torch.allclose(found.scaled(image), expected)


def test_a_style_code_without_room_for_a_colour_is_refused() -> None:
    with pytest.raises(ContractError, match="style_dim must be at least 4, the numbers that tell a colour"):
        Architecture(style_dim=3)
